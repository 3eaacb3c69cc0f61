"""Vectors as they are kept, in the database and in exported stores: numbers of 16 bits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

HALF = np.dtype("<f2")

Halves = npt.NDArray[np.float16]
"""float16 [n, dimensions], rows of L2 norm 1."""

_NORMS = (0.99, 1.01)  # fp16 has three digits
_ROWS_AT_A_TIME = 128  # of float32, which are twice as large


def num_odd(vectors: Halves) -> int:
    """Count vectors that are not of length 1."""
    return sum(_num_odd(vectors[start : start + _ROWS_AT_A_TIME]) for start in range(0, len(vectors), _ROWS_AT_A_TIME))


def _num_odd(vectors: Halves) -> int:
    norms = np.linalg.norm(vectors.astype(np.float32), axis=1)
    return int(np.count_nonzero(~((norms > _NORMS[0]) & (norms < _NORMS[1]))))  # of NaN, neither is true
