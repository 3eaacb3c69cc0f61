"""Vectors in fewer bits, as Cohere, Voyage and sentence-transformers lay them out.

    float    4 bytes each            as they are
    int8     1 byte                  x * 127, rounded; divide by 127 to come back
    uint8    1 byte                  the same plus 128
    ubinary  1 bit, 8 in a byte      1 where x > 0; the first component is the highest bit
    binary   1 bit, 8 in a byte      ubinary minus 128, as a signed byte

int8 has one scale for all vectors, not one for each: dot products still compare. It needs no calibration data, because
components of unit vectors lie in -1..1.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

VectorType = Literal["float", "int8", "uint8", "binary", "ubinary"]

INT8_SCALE = 127


def quantise(vectors: npt.NDArray[np.float32], vector_type: VectorType) -> npt.NDArray[Any]:
    """Convert unit vectors, float32 [num_vectors, dimensions].

    Returns:
        float32, int8 or uint8 of the same shape; int8 or uint8 [num_vectors, ceil(dimensions / 8)] of the binary
        types, missing bits being 0. Not a copy where nothing changes.
    """
    match vector_type:
        case "float":
            return vectors
        case "int8":
            return _scaled(vectors).astype(np.int8)
        case "uint8":
            return (_scaled(vectors) + 128).astype(np.uint8)
        case "ubinary":
            return np.packbits(vectors > 0, axis=1)
        case "binary":
            return (np.packbits(vectors > 0, axis=1) ^ np.uint8(128)).view(np.int8)


def _scaled(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    # Rounding of the norm may leave 1.0000001, which must not wrap around.
    scaled: npt.NDArray[np.float32] = np.rint(vectors * np.float32(INT8_SCALE))
    return scaled.clip(-INT8_SCALE, INT8_SCALE)
