"""Each kernel of a GPU, packed or padded, gives the vectors and scores of fp32 on the processor."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from server.config.load import load_config
from server.config.schema import KernelName, ModelConfig
from server.encoders.encoder import Pairs, Texts
from server.encoders.kernels import score_shift, turn
from server.models.weights import WeightsStore
from tests.integration.live_models import EMBEDDING, REPOSITORY, RERANK

KERNELS: tuple[KernelName, ...] = (
    "torch-fp32", "torch-fp16", "torch-bf16", "torch-packed-fp16", "torch-packed-bf16",
)  # fmt: skip
TEXTS = [" ".join(f"word{n % (7 + seed)}" for n in range(length)) for seed, length in enumerate((3, 30, 1, 90, 120))]
TOLERANCE = 1e-3


def find(model_id: str, device: str) -> tuple[ModelConfig, Path]:
    config = load_config(REPOSITORY / "models.yaml", environ=os.environ).config
    model = next(each for each in config.models if each.id == model_id).model_copy(update={"device": device})
    path = WeightsStore(config.server.weights_dir, Path(os.devnull)).check(model).path
    assert path
    return model, path


@pytest.mark.parametrize("kernel", KERNELS)
def test_vectors_are_those_of_the_processor(kernel: KernelName) -> None:
    from server.encoders.embedder import load_embedder

    (on_gpu, folder), (on_cpu, _) = find(EMBEDDING, "cuda"), find(EMBEDDING, "cpu")
    exact = load_embedder(folder, on_cpu, kernel="torch-fp32", num_threads=4, details={})
    fast = load_embedder(folder, on_gpu, kernel=kernel, num_threads=4, details={})

    items = exact.tokenize(Texts(TEXTS))

    assert fast.facts.details["device"].startswith("cuda")
    assert turn(fast.forward(items), exact.forward(items)) < TOLERANCE


@pytest.mark.parametrize("kernel", KERNELS)
def test_scores_are_those_of_the_processor(kernel: KernelName) -> None:
    from server.encoders.reranker import load_torch_reranker

    (on_gpu, folder), (on_cpu, _) = find(RERANK, "cuda"), find(RERANK, "cpu")
    exact = load_torch_reranker(folder, on_cpu, kernel="torch-fp32", num_threads=4, details={})
    fast = load_torch_reranker(folder, on_gpu, kernel=kernel, num_threads=4, details={})

    items = exact.tokenize(Pairs("which word", TEXTS))

    # bf16 has 8 bits of a number: its scores are held to what kernels may differ by at load.
    tolerance = 0.02 if "bf16" in kernel else TOLERANCE
    assert score_shift(fast.forward(items), exact.forward(items)) < tolerance
