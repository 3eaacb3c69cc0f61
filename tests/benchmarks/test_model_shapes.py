from __future__ import annotations

import pytest

from benchmarks.model_shapes import (
    LLAMA3_8B,
    QWEN3_0_6B,
    QWEN3_8B,
    QWEN3_30B_A3B,
    ModelShape,
    Quantisation,
    bytes_per_token,
    tensors_of,
)


@pytest.mark.parametrize(
    ("shape", "quantisation", "file_bytes"),
    [
        (QWEN3_0_6B, "Q8_0", 639_446_688),
        (QWEN3_8B, "Q4_K_M", 5_027_783_488),
        (QWEN3_8B, "Q8_0", 8_709_518_112),
        (QWEN3_30B_A3B, "Q4_K_M", 18_556_686_752),
        (LLAMA3_8B, "Q4_K_M", 4_920_734_272),
    ],
)
def test_a_shape_weighs_what_the_published_file_does(
    shape: ModelShape, quantisation: Quantisation, file_bytes: int
) -> None:
    assert sum(tensor.size_bytes for tensor in tensors_of(shape, quantisation)) == pytest.approx(file_bytes, rel=0.02)


def test_a_token_of_experts_reads_those_that_it_is_sent_to() -> None:
    """3 of 30 billion weights: a tenth of the file, and the output matrix."""
    total = sum(tensor.size_bytes for tensor in tensors_of(QWEN3_30B_A3B, "Q4_K_M"))

    assert 0.08 < bytes_per_token(QWEN3_30B_A3B, "Q4_K_M") / total < 0.14
    assert 0.9 < bytes_per_token(QWEN3_8B, "Q4_K_M") / sum(t.size_bytes for t in tensors_of(QWEN3_8B, "Q4_K_M")) < 1
