"""Which estimate a model gets. That they are right is shown where they are made, and in tests/integration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from server.bindings.gpu import Gpu
from server.config.schema import ModelConfig
from server.config.script_section import ScriptRule
from server.device_needs import MemoryEstimate
from server.errors import LoadFailed
from server.workers import memory_estimates
from server.workers.memory_estimates import MemoryEstimates, estimate_memory
from server.workers.messages import WorkerSpec
from tests.fakes.nvml import H100, L4
from tests.fakes.tiny_models import write_recurrent, write_windowed

MIB = 1 << 20


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    path = tmp_path / "m.gguf"
    write_windowed(path)
    return path


def estimate(
    path: Path | None,
    *gpus: Gpu,
    has_cuda: bool = True,
    kind: str = "chat",
    backend: str = "llama_cpp",
    **settings: object,
) -> MemoryEstimate:
    source = {} if backend == "script" else {"source": f"file:{path}"}
    config = ModelConfig.model_validate({"id": "m", "kind": kind, "backend": backend, **source, **settings})
    spec = WorkerSpec(
        model_json=config.model_dump_json(), weights_path=str(path) if path else None, endpoint="", num_threads=2
    )
    return estimate_memory(config, spec, gpus, has_cuda=has_cuda)


def test_a_script_takes_a_process_and_no_weights() -> None:
    made = estimate(None, backend="script", script=[ScriptRule(text="x")])

    assert made.source == "none"
    assert 20 * MIB < made.of("cpu").total < 100 * MIB


def test_a_chat_model_is_on_gpus_where_llama_cpp_was_built_for_them(gguf: Path) -> None:
    assert estimate(gguf, H100).gpu_layers == 5
    assert estimate(gguf, H100, has_cuda=False).gpu_layers == 0
    assert estimate(gguf).gpu_layers == 0


def test_a_device_that_is_named_is_the_only_one(gguf: Path) -> None:
    made = estimate(gguf, H100, L4, device="cuda:1")

    assert [need.device for need in made.needs] == ["cpu", "cuda:1"]


def test_layers_that_do_not_fit_stay_with_the_processor(gguf: Path) -> None:
    full = replace(H100, used_bytes=H100.total_bytes)

    assert estimate(gguf, full).gpu_layers == 0
    assert estimate(gguf, full, gpu_layers="all").gpu_layers == 5


def test_what_is_configured_is_what_is_counted(gguf: Path) -> None:
    small, large = (estimate(gguf, context=256, kv_cells=cells).of("cpu").kv for cells in (1024, 4096))

    assert large == 4 * small > 0


def test_caches_are_told_apart_from_what_is_needed(gguf: Path) -> None:
    assert estimate(gguf, prefix_memory_mb=100).caches == 100 * MIB
    assert estimate(gguf, kind="embedding", cache_mb=5).caches == 5 * MIB


def test_a_recurrent_model_keeps_states(tmp_path: Path) -> None:
    path = tmp_path / "mamba.gguf"
    write_recurrent(path)

    few, many = (estimate(path, max_sequences=count).of("cpu").kv for count in (4, 8))

    assert many == 2 * few > 0


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"context": 1 << 20}, "the model was made for"),
        ({"device": "cuda:3"}, "llama.cpp finds no such GPU"),
    ],
)
def test_what_would_not_load_is_said_as_a_load_would(gguf: Path, settings: dict[str, object], reason: str) -> None:
    with pytest.raises(LoadFailed, match=reason):
        estimate(gguf, H100, **settings)  # type: ignore[arg-type]  # settings


def test_an_encoder_in_torch_is_on_the_first_gpu_where_torch_can_use_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file({"embeddings": np.zeros((10, 8), np.float16)}, tmp_path / "model.safetensors")
    encoder = {"kind": "embedding", "backend": "sentence_transformers"}

    monkeypatch.setattr(memory_estimates, "_is_torch_for_cpu", lambda: False)
    on_gpu = estimate(tmp_path, H100, L4, **encoder)  # type: ignore[arg-type]  # settings
    monkeypatch.setattr(memory_estimates, "_is_torch_for_cpu", lambda: True)
    on_cpu = estimate(tmp_path, H100, L4, **encoder)  # type: ignore[arg-type]

    assert [need.device for need in on_gpu.needs] == ["cpu", "cuda:0"]
    assert [need.device for need in on_cpu.needs] == ["cpu"]


def test_totals_add_up(gguf: Path) -> None:
    made = estimate(gguf, H100)

    assert made.ram + made.vram == made.weights + made.kv + made.compute == sum(need.total for need in made.needs)
    assert made.vram > 0


def test_models_are_estimated_as_the_server_would_start_them(gguf: Path) -> None:
    config = ModelConfig.model_validate({"id": "m", "kind": "chat", "backend": "llama_cpp", "source": f"file:{gguf}"})

    made = MemoryEstimates(num_threads=2)(config, gguf)

    assert made.ram == estimate(gguf, has_cuda=False).ram


def test_weights_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match=r"absent\.gguf is not there; run `hearth pull m`"):
        estimate(tmp_path / "absent.gguf")
