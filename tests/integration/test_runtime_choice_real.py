"""Measuring with real llama.cpp, on tiny models of every kind of memory, and the command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from server.bindings.llama_context import LlamaContext
from server.bindings.llama_model import LlamaModel
from server.config.schema import ModelConfig
from server.workers.messages import WorkerSpec
from server.workers.runtime_choice import choose_runtime
from server.workers.tuning_cache import open_cache
from tests.fakes.tiny_models import write_hybrid, write_recurrent, write_windowed
from tests.integration.conftest import RunHearth
from tests.integration.live_models import DEFAULTS, REPOSITORY, RERANK

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("layout", [{"kv_cells": 1024}, {"kv_cells": 64}, {}], ids=str)
@pytest.mark.parametrize("write", [write_recurrent, write_hybrid, write_windowed])
def test_every_kind_of_model_is_measured_and_runs_as_chosen(
    tmp_path: Path, write: Callable[[Path], None], layout: dict[str, int]
) -> None:
    weights = tmp_path / "tiny.gguf"
    write(weights)
    config = ModelConfig.model_validate(
        {"id": "m", "kind": "chat", "backend": "llama_cpp", "source": "file:x", "max_sequences": 4, "context": 64}
        | layout
    )
    spec = WorkerSpec(
        model_json="", weights_path=str(weights), endpoint="", num_threads=2, tuning_dir=str(tmp_path / "tuning")
    )

    with LlamaModel(weights) as model:
        choice = choose_runtime(model, config, spec, context_length=64, num_pinned=0, has_gpu_layers=False)
        with LlamaContext(model, choice.options):
            pass

    cache = open_cache(config, spec)
    assert cache is not None
    tuning = cache.load()
    assert tuning is not None
    assert tuning.is_complete
    assert {trial.failure for trial in tuning.trials if trial.settings.kv_type == "f16"} == {""}


def test_tune_prints_what_it_measured_and_remembers_it(
    tmp_path: Path, run_hearth: RunHearth, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_windowed(tmp_path / "tiny.gguf")
    (tmp_path / "models.yaml").write_text(
        "models: [{id: m, kind: chat, backend: llama_cpp, source: 'file:tiny.gguf', kv: unified}]\n"
    )

    tuned = run_hearth("tune", "m", "--json")
    assert tuned.returncode == 0, tuned.stderr
    [remembered] = (tmp_path / "cache" / "hearth" / "tuning").glob("*.json")
    assert json.loads(tuned.stdout) == json.loads(remembered.read_text())["tuning"]

    table = run_hearth("tune", "m").stdout.splitlines()
    assert table[0].split() == ["KV", "FLASH", "TYPE", "THREADS", "UBATCH", "PREFILL", "STEP", "SHARED", "SCORE"]
    assert len([line for line in table if line.rstrip().endswith("best")]) == 1
    assert table[-1].endswith("remembered for the next load")


def test_tune_measures_an_encoders_kernels_for_its_next_load(
    tmp_path: Path, run_hearth: RunHearth, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    server = {"weights_dir": str(REPOSITORY / "weights")}
    models = [model for model in DEFAULTS if model["id"] == RERANK]
    (tmp_path / "models.yaml").write_text(yaml.safe_dump({"server": server, "models": models}))

    table = run_hearth("tune", RERANK).stdout.splitlines()

    assert table[0].split() == ["KERNEL", "INPUTS/S", "BATCH", "DIFFERENCE", "FROM"]
    assert [line.split()[0] for line in table[1:3]] == ["onnx", "torch-fp32"]
    [remembered] = (tmp_path / "cache" / "hearth" / "tuning").glob("*.json")
    assert json.loads(remembered.read_text())["tuning"]["best"] in table[-1]
    doctor = json.loads(run_hearth("doctor", "--json").stdout)
    [kernel] = [each for each in doctor["findings"] if each["name"] == f"kernel {RERANK}"]
    assert "measured 20" in kernel["value"]  # what the next load would look up


def test_tune_says_why_it_cannot(tmp_path: Path, run_hearth: RunHearth) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(range(256)))
    (tmp_path / "models.yaml").write_text(
        "models: [{id: m, kind: chat, backend: llama_cpp, source: 'file:broken.gguf'}]\n"
    )

    broken = run_hearth("tune", "m")

    assert broken.returncode == 1
    assert broken.stderr.startswith("error: measuring failed: llama.cpp cannot load broken.gguf: ")
