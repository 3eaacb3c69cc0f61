"""Writes ONNX files: a network's nodes and numbers, in protobuf's wire format. Names as in onnx.proto."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

NodeSpec = tuple[str, Sequence[str], Sequence[str]]
"""Operation, inputs, outputs."""

_DATA_TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int64": 7}


def write_onnx(
    path: Path, nodes: Sequence[NodeSpec], tensors: Mapping[str, npt.NDArray[Any]], *, numbers_in_raw: bool = True
) -> None:
    """Write a file. Constants are nodes of the operation `Constant`, whose value is the tensor of their output's name.

    Args:
        numbers_in_raw: As bytes; otherwise in the fields for numbers of their kind, as exporters do with single ones.
    """
    constants = {outputs[0] for op, _, outputs in nodes if op == "Constant"}
    graph = b""
    for op, inputs, outputs in nodes:
        node = b"".join(_bytes(1, name.encode()) for name in inputs)
        node += b"".join(_bytes(2, name.encode()) for name in outputs) + _bytes(4, op.encode())
        if op == "Constant":
            node += _bytes(5, _bytes(1, b"value") + _bytes(5, _tensor("", tensors[outputs[0]], raw=numbers_in_raw)))
        graph += _bytes(1, node)
    for name, tensor in tensors.items():
        if name not in constants:
            graph += _bytes(5, _tensor(name, tensor, raw=numbers_in_raw))
    path.write_bytes(_number(1, 7) + _bytes(2, b"test") + _bytes(7, graph))


def _tensor(name: str, tensor: npt.NDArray[Any], *, raw: bool) -> bytes:
    head = b"".join(_number(1, size) for size in tensor.shape) + _number(2, _DATA_TYPES[tensor.dtype.name])
    head += _bytes(8, name.encode())
    if raw or tensor.dtype == np.int64:
        return head + _bytes(9, tensor.tobytes())
    if tensor.dtype == np.float32:
        return head + _bytes(4, tensor.tobytes())
    return head + _bytes(5, b"".join(_varint(int(number) % 2**64) for number in tensor.flat))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])
