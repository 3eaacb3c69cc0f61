"""What a GGUF file holds, read from its header: metadata, and its tensors' names, shapes and types.

Standard library only, since the API process reads it too, before anything is loaded.
Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import mmap
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from server.errors import LoadFailed

Value = bool | int | float | str | tuple[int, ...]
"""Arrays of integers are tuples. Of other arrays, which are vocabularies, only the length is kept."""

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _ARRAY, _BOOL = 8, 9, 7
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_INTEGERS = frozenset({0, 1, 2, 3, 4, 5, 10, 11})

_MAX_KEPT_ARRAY = 1024
"""Longer arrays are no property of layers."""

_MAX_ENTRIES = 1 << 20
"""Of metadata or tensors: a header that claims more is damaged."""

_SPLIT = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<count>\d{5})\.gguf")

BLOCKS: Mapping[int, tuple[int, int]] = {
    0: (1, 4),  # F32
    1: (1, 2),  # F16
    2: (32, 18),  # Q4_0
    3: (32, 20),  # Q4_1
    6: (32, 22),  # Q5_0
    7: (32, 24),  # Q5_1
    8: (32, 34),  # Q8_0
    9: (32, 36),  # Q8_1
    10: (256, 84),  # Q2_K
    11: (256, 110),  # Q3_K
    12: (256, 144),  # Q4_K
    13: (256, 176),  # Q5_K
    14: (256, 210),  # Q6_K
    15: (256, 292),  # Q8_K
    16: (256, 66),  # IQ2_XXS
    17: (256, 74),  # IQ2_XS
    18: (256, 98),  # IQ3_XXS
    19: (256, 50),  # IQ1_S
    20: (32, 18),  # IQ4_NL
    21: (256, 110),  # IQ3_S
    22: (256, 82),  # IQ2_S
    23: (256, 136),  # IQ4_XS
    24: (1, 1),  # I8
    25: (1, 2),  # I16
    26: (1, 4),  # I32
    27: (1, 8),  # I64
    28: (1, 8),  # F64
    29: (256, 56),  # IQ1_M
    30: (1, 2),  # BF16
    34: (256, 54),  # TQ1_0
    35: (256, 66),  # TQ2_0
    39: (32, 17),  # MXFP4
    40: (64, 36),  # NVFP4
    41: (128, 18),  # Q1_0
}
"""Of each of ggml's types: how many weights share a block, and its bytes."""


@dataclass(frozen=True)
class Tensor:
    """One tensor. `shape` has the inputs first, as ggml counts."""

    name: str
    shape: tuple[int, ...]
    kind: int

    @property
    def size_bytes(self) -> int:
        weights, size = BLOCKS[self.kind]
        return math.prod(self.shape) // weights * size


@dataclass(frozen=True)
class GgufHeader:
    """What is said before the weights.

    Attributes:
        values: Metadata by key.
        array_lengths: Lengths of the arrays that are not kept, by key.
        tensors: Of all files, for a model that comes in several.
    """

    values: Mapping[str, Value]
    array_lengths: Mapping[str, int]
    tensors: tuple[Tensor, ...]

    @property
    def architecture(self) -> str:
        return str(self.values.get("general.architecture", ""))

    def number(self, key: str, default: int = 0) -> int:
        """A count of this architecture, such as `attention.head_count`; of one that differs by layer, the largest."""
        value = self.values.get(f"{self.architecture}.{key}", default)
        return max(value, default=default) if isinstance(value, tuple) else int(value)

    def by_layer(self, key: str, default: int = 0) -> list[int]:
        """The same for each layer."""
        value = self.values.get(f"{self.architecture}.{key}", default)
        num_layers = self.number("block_count")
        if isinstance(value, tuple):
            return [*value[:num_layers], *[default] * (num_layers - len(value))]
        return [int(value)] * num_layers

    def has_tensor(self, *names: str) -> bool:
        return any(tensor.name in names for tensor in self.tensors)


def read_header(path: Path) -> GgufHeader:
    """Read the header of a GGUF file, and of its further parts.

    Raises:
        LoadFailed: A file is missing, no GGUF, cut off, or has a type of tensor that is not known.
    """
    parts = [_read_part(part) for part in _parts(path)]
    tensors = tuple(tensor for part in parts for tensor in part.tensors)
    return GgufHeader(parts[0].values, parts[0].array_lengths, tensors)


def _parts(path: Path) -> Iterator[Path]:
    split = _SPLIT.fullmatch(path.name)
    if split is None:
        yield path
        return
    for number in range(1, int(split["count"]) + 1):
        yield path.with_name(f"{split['stem']}-{number:05}-of-{split['count']}.gguf")


def _read_part(path: Path) -> GgufHeader:
    try:
        with path.open("rb") as file:
            if file.read(4) != _MAGIC:
                raise LoadFailed(f"{path.name} is not a GGUF file")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Reader(data, path.name).header()
    except OSError as exc:
        raise LoadFailed(f"cannot read {path.name}: {exc.strerror}") from exc
    except (struct.error, ValueError, LookupError, OverflowError) as exc:
        raise LoadFailed(f"{path.name} has a damaged header: {exc}") from exc


class _Reader:
    """Walks through a header once, from its start."""

    def __init__(self, data: mmap.mmap, name: str) -> None:
        self._data = data
        self._name = name
        self._at = len(_MAGIC)

    def header(self) -> GgufHeader:
        version = self._take("I")
        if version not in _VERSIONS:
            raise LoadFailed(f"{self._name} is GGUF version {version}; expected {' or '.join(map(str, _VERSIONS))}")
        num_tensors, num_values = self._count(), self._count()
        values: dict[str, Value] = {}
        lengths: dict[str, int] = {}
        for _ in range(num_values):
            key = self._text()
            self._read_value(key, values, lengths)
        return GgufHeader(values, lengths, tuple(self._tensor() for _ in range(num_tensors)))

    def _read_value(self, key: str, values: dict[str, Value], lengths: dict[str, int]) -> None:
        kind = self._take("I")
        if kind == _STRING:
            values[key] = self._text()
        elif kind == _ARRAY:
            self._read_array(key, values, lengths)
        else:
            values[key] = self._take(_SCALARS[kind])

    def _read_array(self, key: str, values: dict[str, Value], lengths: dict[str, int]) -> None:
        kind, length = self._take("I"), self._take("Q")
        if kind == _STRING:
            for _ in range(length):
                self._skip(self._take("Q"))
        elif (kind in _INTEGERS or kind == _BOOL) and length <= _MAX_KEPT_ARRAY:
            values[key] = tuple(self._take(_SCALARS[kind]) for _ in range(length))
            return
        else:
            self._skip(length * struct.calcsize(f"<{_SCALARS[kind]}"))
        lengths[key] = length

    def _tensor(self) -> Tensor:
        name = self._text()
        shape = tuple(self._take("Q") for _ in range(self._take("I")))
        kind = self._take("I")
        self._take("Q")  # where its weights are
        if kind not in BLOCKS:
            raise LoadFailed(f"{self._name}: tensor {name} is of a type ({kind}) that is not known here")
        return Tensor(name, shape, kind)

    def _count(self) -> int:
        count = self._take("Q")
        if count > _MAX_ENTRIES:
            raise ValueError(f"it claims {count} entries")
        return count

    def _text(self) -> str:
        length = self._take("Q")
        start = self._at
        self._skip(length)
        return self._data[start : self._at].decode("utf-8")

    def _skip(self, length: int) -> None:
        self._at += length
        if self._at > len(self._data):
            raise ValueError("it is cut off")

    def _take(self, kind: str) -> int:
        (value,) = struct.unpack_from(f"<{kind}", self._data, self._at)
        self._at += struct.calcsize(f"<{kind}")
        result: int = value  # or a float, which only `values` takes
        return result
