"""Estimates against what is really taken: by the default models' workers, and by llama.cpp itself."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from benchmarks.model_shapes import TINY, TINY_EXPERTS, ModelShape
from benchmarks.server_process import HEARTH, ServerProcess, environment
from benchmarks.synthetic_gguf import write_synthetic_gguf
from server.config.load import load_config
from server.config.schema import HearthConfig, ModelConfig
from server.device_needs import MemoryEstimate
from server.models.weights import WeightsStore
from server.workers.memory_estimates import estimate_memory
from server.workers.messages import WorkerSpec
from tests.fakes.tiny_models import write_hybrid, write_recurrent, write_windowed
from tests.integration.live_models import CHAT, DEFAULTS, EMBEDDING, REPOSITORY, RERANK

pytestmark = pytest.mark.integration

CELLS = 2048
LARGEST_ERROR = 0.15

FUSED = {"flash_attention": "on"}
"""Without it, attention may need memory for all pairs of a micro-batch and the cells, and takes it only where as many
tokens are computed at a time, which depends on how busy the machine is: then the estimate is an upper bound."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, HearthConfig]]:
    """The default models, with kernels and sizes that do not depend on what was measured here."""
    path = tmp_path_factory.mktemp("estimates") / "models.yaml"
    fixed = {
        CHAT: {"context": 1024, "kv_cells": CELLS, "prefix_memory_mb": 0, "threads": 1, **FUSED},
        EMBEDDING: {"kernel": "torch-fp32", "threads": 1},
        RERANK: {"kernel": "onnx", "threads": 1},
    }
    models = [{**model, **fixed[model["id"]]} for model in DEFAULTS if model["id"] in fixed]
    server = {"port": 0, "weights_dir": str(REPOSITORY / "weights"), "tune": False}
    path.write_text(yaml.safe_dump({"server": server, "models": models}))
    subprocess.run([HEARTH, "pull", "--config", str(path), *fixed], env=environment(), check=True)
    with ServerProcess(path, path.with_name("log")) as process:
        process.wait_until_settled()
        yield process, load_config(path, environ={}).config


def estimate(config: HearthConfig, model_id: str, *, asks: bool = False) -> MemoryEstimate:
    model = next(each for each in config.models if each.id == model_id)
    weights = WeightsStore(config.server.weights_dir, Path(os.devnull)).check(model).path
    return _estimate(model, weights, asks=asks)


def _estimate(model: ModelConfig, weights: Path | None, *, asks: bool = False) -> MemoryEstimate:
    spec = WorkerSpec(
        model_json=model.model_dump_json(), weights_path=str(weights), endpoint="", num_threads=model.threads or 2
    )
    return estimate_memory(model, spec, [], has_cuda=False, asks_llama_cpp=asks)


def peak_bytes(server: ServerProcess, model_id: str) -> int:
    status = Path(f"/proc/{server.worker_pids()[model_id]}/status").read_text()
    peak = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    assert peak
    return int(peak[1]) << 10


def post(server: ServerProcess, path: str, body: dict[str, object]) -> None:
    assert httpx.post(f"{server.url}{path}", json=body, timeout=300).status_code == 200


@pytest.mark.parametrize("asks", [False, True], ids=["header", "llama.cpp"])
def test_the_default_chat_model_takes_what_was_estimated(
    served: tuple[ServerProcess, HearthConfig], asks: bool, record_property: object
) -> None:
    server, config = served
    for number in range(3):  # more tokens than there are cells
        text = f"{number} " + "word river " * 400
        post(server, "/v1/chat/completions", {
            "model": CHAT, "messages": [{"role": "user", "content": text}], "max_tokens": 2,
        })  # fmt: skip

    made = estimate(config, CHAT, asks=asks)

    measured = peak_bytes(server, CHAT)
    print(f"estimated {made.of('cpu').total >> 20} MiB, measured {measured >> 20}")
    assert made.of("cpu").total == pytest.approx(measured, rel=LARGEST_ERROR)


def test_the_default_embedding_model_takes_what_was_estimated(served: tuple[ServerProcess, HearthConfig]) -> None:
    server, config = served
    texts = [f"{number} " + "word river " * 90 for number in range(32)]
    post(server, "/v1/embeddings", {"model": EMBEDDING, "input": texts})

    made = estimate(config, EMBEDDING)

    assert made.of("cpu").total == pytest.approx(peak_bytes(server, EMBEDDING), rel=LARGEST_ERROR)


def test_the_default_reranker_takes_what_was_estimated(served: tuple[ServerProcess, HearthConfig]) -> None:
    server, config = served
    documents = [f"{number} " + "word river " * 90 for number in range(16)]
    post(server, "/v1/rerank", {"model": RERANK, "query": "river", "documents": documents})

    made = estimate(config, RERANK)

    assert made.of("cpu").total == pytest.approx(peak_bytes(server, RERANK), rel=LARGEST_ERROR)


WRITERS = {"windowed": write_windowed, "recurrent": write_recurrent, "hybrid": write_hybrid}


SETTINGS: tuple[dict[str, object], ...] = ({}, {"kv": "streams", "kv_cells": 4096}, {"kv_type": "q8_0"})
CASES = [
    (name, settings)
    for name in (*WRITERS, TINY.name, TINY_EXPERTS.name)
    for settings in SETTINGS
    if "kv_type" not in settings or name.startswith("tiny")  # the others' heads are narrower than a block of q8_0
]


@pytest.mark.parametrize(("name", "settings"), CASES, ids=str)
def test_the_header_tells_what_llama_cpp_keeps(tmp_path: Path, name: str, settings: dict[str, object]) -> None:
    """The rule against llama.cpp's own account, which lays the model out without memory being taken."""
    path = tmp_path / "m.gguf"
    shapes: dict[str, ModelShape] = {TINY.name: TINY, TINY_EXPERTS.name: TINY_EXPERTS}
    if name in WRITERS:
        WRITERS[name](path)
    else:
        write_synthetic_gguf(path, shapes[name], "Q8_0")
    model = ModelConfig.model_validate(
        {"id": "m", "kind": "chat", "backend": "llama_cpp", "source": f"file:{path}", "context": 512,
         "max_sequences": 8, **settings}
    )  # fmt: skip

    by_rule, asked = (_estimate(model, path, asks=asks).of("cpu") for asks in (False, True))

    assert by_rule.kv == pytest.approx(asked.kv, rel=0.02, abs=1 << 14)
    assert asked.compute <= by_rule.compute
