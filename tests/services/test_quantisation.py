"""Vectors in fewer bits."""

from __future__ import annotations

import numpy as np
import pytest

from server.services.quantisation import VectorType, quantise

VECTORS = np.array([[1.0000001, -1.0, 0.004, 0.5, -0.5, 0, 1e-9, -1e-9, 0.3]], dtype=np.float32)


def test_int8_is_the_vector_times_127() -> None:
    assert quantise(VECTORS, "int8").tolist() == [[127, -127, 1, 64, -64, 0, 0, 0, 38]]


def test_uint8_is_int8_moved_up_by_128() -> None:
    moved = quantise(VECTORS, "uint8").astype(int) - 128

    assert moved.tolist() == quantise(VECTORS, "int8").tolist()


def test_ubinary_packs_signs_the_first_component_highest_and_fills_up_with_zeros() -> None:
    assert quantise(VECTORS, "ubinary").tolist() == [[0b10110010, 0b10000000]]


def test_binary_is_ubinary_moved_down_by_128() -> None:
    assert quantise(VECTORS, "binary").tolist() == [[0b10110010 - 128, 0]]


@pytest.mark.parametrize(
    ("vector_type", "dtype"), [("int8", "int8"), ("uint8", "uint8"), ("binary", "int8"), ("ubinary", "uint8")]
)
def test_types_are_what_they_are_called(vector_type: VectorType, dtype: str) -> None:
    assert quantise(VECTORS, vector_type).dtype == np.dtype(dtype)


@pytest.mark.parametrize("dimensions", [384, 1024, 4096])
def test_int8_keeps_directions(dimensions: int) -> None:
    vectors = np.random.default_rng(0).standard_normal((50, dimensions)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

    back = quantise(vectors, "int8").astype(np.float32) / 127

    cosines = (back * vectors).sum(axis=1) / np.linalg.norm(back, axis=1)
    assert cosines.min() > 1 - 3e-6 * dimensions
