"""Reads the nodes and the numbers of an ONNX file: protobuf's wire format, and the few fields that matter here.

Layout: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto. The package `onnx` would do it too, but is a large
dependency for one reader. Knows no model architectures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Tensor = npt.NDArray[Any]

_GRAPH = 7  # of a model
_NODE, _INITIALIZER = 1, 5  # of a graph
_NODE_INPUT, _NODE_OUTPUT, _NODE_OP, _NODE_ATTRIBUTE = 1, 2, 4, 5
_ATTRIBUTE_TENSOR = 5
_DIMS, _DATA_TYPE, _FLOATS, _INT32S, _NAME, _RAW, _EXTERNAL = 1, 2, 4, 5, 8, 9, 13  # of a tensor

_DTYPES = {1: np.float32, 2: np.uint8, 3: np.int8, 6: np.int32, 7: np.int64, 10: np.float16}

Value = int | memoryview


@dataclass(frozen=True)
class Node:
    """One operation: takes tensors by name, gives tensors by name."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Graph:
    """A network. `tensors` are its numbers: weights and constants, as views of the file's bytes."""

    nodes: tuple[Node, ...]
    tensors: Mapping[str, Tensor]

    def producer(self, name: str) -> Node | None:
        """The node that gives the tensor of that name; None for weights and for inputs of the network."""
        return self._producers.get(name)

    def consumers(self, name: str) -> tuple[Node, ...]:
        """The nodes that take the tensor of that name."""
        return tuple(self._consumers.get(name, ()))

    @cached_property
    def _producers(self) -> dict[str, Node]:
        return {name: node for node in self.nodes for name in node.outputs}

    @cached_property
    def _consumers(self) -> dict[str, list[Node]]:
        by_name: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in node.inputs:
                by_name.setdefault(name, []).append(node)
        return by_name


def read_graph(path: Path) -> Graph:
    """Read a file.

    Raises:
        ValueError: It is no ONNX file, or has what is not read here (weights in files of their own).
    """
    try:
        graph = next(value for field, value in _fields(memoryview(path.read_bytes())) if field == _GRAPH)
        return _graph(graph)
    except (StopIteration, IndexError, KeyError, TypeError, ValueError) as exc:
        raise ValueError(f"{path.name} is not an ONNX file that can be read: {exc}") from exc


def _graph(data: Value) -> Graph:
    nodes, tensors = [], {}
    for field, value in _fields(data):
        if field == _INITIALIZER:
            name, tensor = _tensor(value)
            tensors[name] = tensor
        elif field == _NODE:
            node, constant = _node(value)
            nodes.append(node)
            if constant is not None:
                tensors[node.outputs[0]] = constant
    return Graph(tuple(nodes), tensors)


def _node(data: Value) -> tuple[Node, Tensor | None]:
    """A node, and the value of one that is a constant."""
    op, inputs, outputs, constant = "", [], [], None
    for field, value in _fields(data):
        if field == _NODE_INPUT:
            inputs.append(_text(value))
        elif field == _NODE_OUTPUT:
            outputs.append(_text(value))
        elif field == _NODE_OP:
            op = _text(value)
        elif field == _NODE_ATTRIBUTE:
            tensor = next((value for field, value in _fields(value) if field == _ATTRIBUTE_TENSOR), None)
            constant = _tensor(tensor)[1] if tensor is not None else constant
    return Node(op, tuple(inputs), tuple(outputs)), constant if op == "Constant" else None


def _tensor(data: Value) -> tuple[str, Tensor]:
    name, dims, raw = "", list[int](), b""
    dtype: np.dtype[Any] = np.dtype(np.float32)
    for field, value in _fields(data):
        if field == _NAME:
            name = _text(value)
        elif field == _DIMS:
            dims += [value] if isinstance(value, int) else _varints(value)
        elif field == _DATA_TYPE:
            dtype = np.dtype(_DTYPES.get(value, np.void) if isinstance(value, int) else np.void)
        elif field in (_RAW, _FLOATS):
            raw = bytes(value)
        elif field == _INT32S:  # small integers of whatever width
            numbers = [value] if isinstance(value, int) else _varints(value)
            raw = np.array([number & 0xFFFFFFFF for number in numbers], np.uint32).astype(dtype).tobytes()
        elif field == _EXTERNAL:
            raise ValueError(f"the weights {name!r} lie in a file of their own, which is not read here")
    return name, np.frombuffer(raw, dtype).reshape(dims)


# ---- wire format


def _fields(data: Value) -> Iterator[tuple[int, Value]]:
    """The fields of a message, in order: numbers as they are, everything else as a view of its bytes."""
    if isinstance(data, int):
        raise TypeError("a number stands where a message belongs")
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        field, wire_type = key >> 3, key & 7
        if wire_type == 0:
            number, position = _varint(data, position)
            yield field, number
            continue
        if wire_type == 2:
            size, position = _varint(data, position)
        else:
            size = {1: 8, 5: 4}[wire_type]
        if position + size > len(data):
            raise IndexError("a field ends after its message")
        yield field, data[position : position + size]
        position += size


def _varints(data: memoryview) -> list[int]:
    numbers, position = [], 0
    while position < len(data):
        number, position = _varint(data, position)
        numbers.append(number)
    return numbers


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[position]
        position += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return number, position


def _text(value: Value) -> str:
    if isinstance(value, int):
        raise TypeError("a number stands where a text belongs")
    return bytes(value).decode()
