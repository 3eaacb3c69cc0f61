"""Which kernels there are for a machine, and that those of the default models keep to their tolerances."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from server.bindings.cpu import read_cpu
from server.config.schema import KernelName, ModelConfig
from server.encoders.encoder import Encoder, Pairs, Rows, Texts
from server.encoders.kernel_choice import KernelFinding
from server.encoders.kernels import (
    CONVERSION_TOLERANCE,
    COSINE_TOLERANCE,
    SCORE_TOLERANCE,
    score_shift,
    torch_kernels,
    turn,
)
from server.encoders.loading import load_encoder

FindWeights = Callable[[str], tuple[ModelConfig, Path]]

TEXTS = [" ".join(f"word{n % (7 + seed)}" for n in range(length)) for seed, length in enumerate((3, 30, 90, 120))]
QUERY = "what is the capital of france"
DOCUMENTS = [
    "Paris is the capital of France.",
    "Lyon is a city in France. " * 10,
    "The seat of government is called the capital. " * 30,
    "Bananas are rich in potassium.",
]

HERE = torch_kernels("cpu", read_cpu().features)
"""What this machine has; without bf16 only fp32, and then there is little to test."""


@pytest.mark.parametrize(
    ("device", "cpu_features", "kernels"),
    [
        ("cpu", {"avx2", "avx512f"}, ["torch-fp32"]),
        ("cpu", {"avx512_bf16"}, ["torch-fp32", "torch-mixed-bf16", "torch-bf16"]),
        ("cpu", {"amx_bf16"}, ["torch-fp32", "torch-mixed-bf16", "torch-bf16"]),
        ("cuda", {"avx2"}, ["torch-fp32", "torch-fp16", "torch-packed-fp16", "torch-bf16", "torch-packed-bf16"]),
    ],
)
def test_number_formats_are_tried_only_where_the_machine_has_them(
    device: str, cpu_features: set[str], kernels: list[KernelName]
) -> None:
    assert list(torch_kernels(device, cpu_features)) == kernels


def test_vectors_are_compared_by_direction() -> None:
    ours, theirs = np.array([[3, 0], [1, 1]], np.float32), np.array([[1, 0], [0, 2]], np.float32)

    assert turn(ours, 5 * ours) == pytest.approx(0, abs=1e-12)
    assert turn(ours, theirs) == pytest.approx(1 - 0.5**0.5)


def test_scores_are_compared_after_the_sigmoid() -> None:
    assert score_shift(np.array([0, 20], np.float32), np.array([0, 30], np.float32)) < 1e-8
    assert score_shift(np.array([0, 20], np.float32), np.array([np.log(3), 20], np.float32)) == pytest.approx(0.25)


class Memory:
    """Remembers nothing from before; keeps what is found."""

    found: KernelFinding | None = None

    def load(self) -> KernelFinding | None:
        return None

    def may_measure(self) -> bool:
        return True

    def begin(self) -> None:
        pass

    def save(self, found: KernelFinding) -> None:
        self.found = found


def embed(encoder: Encoder[Texts]) -> Rows:
    return encoder.forward(encoder.tokenize(Texts(TEXTS)))


def rerank(encoder: Encoder[Pairs], documents: list[str]) -> Rows:
    return encoder.forward(encoder.tokenize(Pairs(QUERY, documents)))


@pytest.mark.integration
@pytest.mark.parametrize("kernel", HERE)
def test_embeddings_of_every_kernel_agree(
    encoder_weights: FindWeights, embedder: Encoder[Texts], kernel: KernelName
) -> None:
    config, folder = encoder_weights("all-minilm-l6-v2")

    encoder = load_encoder(config.model_copy(update={"kernel": kernel}), folder, num_threads=2)

    assert turn(embed(encoder), embed(embedder)) <= COSINE_TOLERANCE


@pytest.mark.integration
def test_the_int8_reranker_can_be_run_by_torch(encoder_weights: FindWeights, reranker: Encoder[Pairs]) -> None:
    """Its weights are de-quantised: scores differ from the network's own by what that loses, and order does not."""
    config, folder = encoder_weights("ms-marco-minilm-l12-v2")

    encoder = load_encoder(config.model_copy(update={"kernel": "torch-fp32"}), folder, num_threads=2)

    own, scores = rerank(reranker, DOCUMENTS), rerank(encoder, DOCUMENTS)
    assert score_shift(scores, own) <= CONVERSION_TOLERANCE
    assert scores.argsort().tolist() == own.argsort().tolist()
    assert encoder.facts.num_parameters == 33_360_385


@pytest.mark.integration
@pytest.mark.parametrize("kernel", HERE)
def test_company_does_not_change_a_de_quantised_score(encoder_weights: FindWeights, kernel: KernelName) -> None:
    config, folder = encoder_weights("ms-marco-minilm-l12-v2")
    encoder = load_encoder(config.model_copy(update={"kernel": kernel}), folder, num_threads=2)

    together = rerank(encoder, DOCUMENTS)
    alone = np.concatenate([rerank(encoder, [document]) for document in DOCUMENTS])

    assert score_shift(together, alone) <= (1e-4 if kernel == "torch-fp32" else SCORE_TOLERANCE)


@pytest.mark.integration
@pytest.mark.parametrize("model_id", ["all-minilm-l6-v2", "ms-marco-minilm-l12-v2"])
def test_kernels_are_measured_in_seconds(encoder_weights: FindWeights, model_id: str) -> None:
    memory = Memory()

    encoder = load_encoder(*encoder_weights(model_id), num_threads=2, memory=memory)

    assert memory.found is not None
    exact, *_ = memory.found.trials
    assert exact.inputs_per_s > 0
    assert memory.found.took_s < 60
    assert encoder.facts.details["kernel"] == f"{memory.found.best} (measured)"
