"""Write a GGUF file by hand. Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

_ALIGNMENT = 32
_TENSOR_TYPES = {np.dtype(np.float32): 0, np.dtype(np.float16): 1}

Value = bool | str | int | float | list[str] | list[int] | list[float]
Tensors = Mapping[str, npt.NDArray[np.float32] | npt.NDArray[np.float16]]


def write_gguf(path: Path, values: Mapping[str, Value], tensors: Tensors) -> None:
    """Write keys and tensors; shapes are numpy's: the inputs last."""
    infos, data = b"", bytearray()
    for name, weights in tensors.items():
        shape = weights.shape[::-1]
        kind = _TENSOR_TYPES[weights.dtype]
        infos += _text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, len(data))
        data += _padded(weights.tobytes())
    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(values))
    table = b"".join(_text(key) + _tagged(value) for key, value in values.items())
    path.write_bytes(_padded(header + table + infos) + data)


def _tagged(value: Value) -> bytes:
    """A value behind the number of its type. llama.cpp takes single integers unsigned and those of a list signed."""
    if isinstance(value, list):
        if isinstance(value[0], int):
            return struct.pack(f"<IIQ{len(value)}i", 9, 5, len(value), *value)
        items = [_tagged(item) for item in value]
        return struct.pack("<I", 9) + items[0][:4] + struct.pack("<Q", len(items)) + b"".join(i[4:] for i in items)
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + _text(value)
    return struct.pack("<If", 6, value) if isinstance(value, float) else struct.pack("<II", 4, value)


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGNMENT)
