"""The file an index is kept in between two runs: plain arrays under a header, and a digest over all of it.

A cache: whatever is odd about a file (damaged, cut, of another version, of another moment of the store) is a reason to
make the index again, never to fail. Nothing but numpy reads its content, and only once header, size and digest agree.

    magic | length of header | header (msgpack) | the arrays of each segment | SHA-256 of all that

Numbers are little-endian. What the arrays mean is the indexes' business, but for the first of each segment: its ids.
"""

from __future__ import annotations

import hashlib
import math
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from server.storage.disk_room import check_room

Ids = npt.NDArray[np.int64]
Arrays = Sequence[npt.NDArray[Any]]
"""Of one segment; the first one is int64 [n], ids in ascending order."""

VERSION = 2

_MAGIC = b"HEARTHIX"
_MAX_HEADER_BYTES = 1 << 16
_HEADER_LENGTH = struct.Struct("<I")
_DIGEST_BYTES = hashlib.sha256().digest_size


class SnapshotRefused(Exception):
    """A file holds something else than was asked for; the message says what, for the log."""


@dataclass(frozen=True, kw_only=True)
class SnapshotStamp:
    """Which content of a store an index holds: equal stamps, equal content.

    Attributes:
        generation: The store's.
        count: How many chunks it had.
        checksum: `checksum_of` their ids.
        mark: Of the change that made it so. A database that was restored counts on from an earlier generation, and
            gives the ids that it has forgotten to other chunks.
    """

    generation: int
    count: int
    checksum: bytes
    mark: int = 0


class _Layout(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Of one array."""

    dtype: Literal["<i8", "<i4", "<u8", "<u4", "|u1", "<f4", "<f2"]
    shape: tuple[Annotated[int, msgspec.Meta(ge=0)], ...]

    @property
    def num_bytes(self) -> int:
        return np.dtype(self.dtype).itemsize * math.prod(self.shape)


class _Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: int
    generation: int
    count: int
    checksum: bytes
    mark: int
    segments: tuple[tuple[_Layout, ...], ...]

    @property
    def stamp(self) -> SnapshotStamp:
        return SnapshotStamp(generation=self.generation, count=self.count, checksum=self.checksum, mark=self.mark)


def checksum_of(ids: Ids) -> bytes:
    """SHA-256 of ids, which are in ascending order."""
    return hashlib.sha256(_content(ids)).digest()


def write_snapshot(path: Path, stamp: SnapshotStamp, segments: Sequence[Arrays]) -> None:
    """Replace the file at once: a reader finds the old one or the new one. Any error leaves the old one.

    Not synced: what a power cut leaves of it is refused.

    Raises:
        StorageFull: It would take the last room on the disk, and a cache is not worth that.
        OSError: It cannot be written.
    """
    header = msgspec.msgpack.encode(
        _Header(
            version=VERSION,
            generation=stamp.generation,
            count=stamp.count,
            checksum=stamp.checksum,
            mark=stamp.mark,
            segments=tuple(tuple(_layout(array) for array in arrays) for arrays in segments),
        )
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    check_room(path.parent, sum(array.nbytes for arrays in segments for array in arrays))
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            arrays = (array for arrays in segments for array in arrays)
            _write(file, _MAGIC + _HEADER_LENGTH.pack(len(header)) + header, arrays)
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def read_stamp(path: Path) -> SnapshotStamp:
    """Tell what a file claims to hold.

    Raises:
        SnapshotRefused: It is no snapshot, or none that this version reads.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        return _read_header(file)[0].stamp


def read_snapshot(path: Path, expected: SnapshotStamp) -> list[Arrays]:
    """Read what `write_snapshot` wrote. The arrays are views of one buffer, and read-only.

    Raises:
        SnapshotRefused: It is damaged, or holds something else than is expected.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        header, head = _read_header(file)
        if header.stamp != expected:
            raise SnapshotRefused(
                f"it is of generation {header.generation} ({header.mark:x}), the store at {expected.generation} "
                f"({expected.mark:x})"
            )
        body_bytes = sum(layout.num_bytes for layouts in header.segments for layout in layouts)
        size_bytes = len(head) + body_bytes + _DIGEST_BYTES
        if (found_bytes := os.fstat(file.fileno()).st_size) != size_bytes:
            raise SnapshotRefused(f"it has {found_bytes} bytes, expected {size_bytes}")
        content = memoryview(file.read(body_bytes + _DIGEST_BYTES))
    digest = hashlib.sha256(head)
    digest.update(content[:body_bytes])
    if digest.digest() != content[body_bytes:]:
        raise SnapshotRefused("its digest does not fit its content")
    segments = list(_segments(header, content))
    _check_ids(segments, expected)
    return segments


def _layout(array: npt.NDArray[Any]) -> _Layout:
    return msgspec.convert((array.dtype.newbyteorder("<").str, array.shape), _Layout)


def _write(file: BinaryIO, head: bytes, arrays: Iterable[npt.NDArray[Any]]) -> None:
    digest = hashlib.sha256(head)
    file.write(head)
    for array in arrays:
        content = _content(array)
        digest.update(content)
        file.write(content)
    file.write(digest.digest())


def _content(array: npt.NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1).view(np.uint8).data


def _read_header(file: BinaryIO) -> tuple[_Header, bytes]:
    """Return the header, and all bytes up to its end."""
    start = file.read(len(_MAGIC) + _HEADER_LENGTH.size)
    if not start.startswith(_MAGIC) or len(start) < len(_MAGIC) + _HEADER_LENGTH.size:
        raise SnapshotRefused("it is no index of ours")
    (length,) = _HEADER_LENGTH.unpack(start[len(_MAGIC) :])
    if length > _MAX_HEADER_BYTES:
        raise SnapshotRefused(f"its header has {length} bytes")
    encoded = file.read(length)
    try:
        header = msgspec.msgpack.decode(encoded, type=_Header)
    except (msgspec.DecodeError, ValueError) as exc:  # the latter: names that are no UTF-8
        raise SnapshotRefused(f"its header cannot be read: {exc}") from exc
    if header.version != VERSION:
        raise SnapshotRefused(f"it is of version {header.version}, expected {VERSION}")
    return header, start + encoded


def _segments(header: _Header, content: memoryview) -> Iterator[Arrays]:
    start = 0
    for layouts in header.segments:
        arrays = []
        for layout in layouts:
            part = content[start : start + layout.num_bytes]
            arrays.append(np.frombuffer(part, layout.dtype).reshape(layout.shape))
            start += layout.num_bytes
        yield arrays


def _check_ids(segments: Sequence[Arrays], expected: SnapshotStamp) -> None:
    """Compare them with the header: whoever can write a file can write its digest as well."""
    if any(not arrays or arrays[0].dtype != np.int64 or arrays[0].ndim != 1 for arrays in segments):
        raise SnapshotRefused("it has segments without ids")
    ids = np.sort(np.concatenate([np.empty(0, np.int64), *(arrays[0] for arrays in segments)]))
    is_ascending = all(np.all(np.diff(arrays[0]) > 0) for arrays in segments)
    if not is_ascending or len(ids) != expected.count or checksum_of(ids) != expected.checksum:
        raise SnapshotRefused("its ids are not those of its header")
