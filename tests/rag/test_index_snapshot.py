from __future__ import annotations

import hashlib
import struct
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.rag.index_snapshot import (
    Arrays,
    SnapshotRefused,
    SnapshotStamp,
    checksum_of,
    read_snapshot,
    read_stamp,
    write_snapshot,
)

IDS = np.array([3, 5, 8, 13], np.int64)
STAMP = SnapshotStamp(generation=7, count=4, checksum=checksum_of(IDS), mark=-5)


def arrays(ids: np.ndarray) -> Arrays:
    return ids, np.arange(3 * len(ids), dtype=np.float16).reshape(-1, 3), np.empty((0, 7), np.float32)


SEGMENTS = [arrays(IDS[:3]), arrays(IDS[3:])]
LAYOUTS = [
    [["<i8", [3]], ["<f2", [3, 3]], ["<f4", [0, 7]]],
    [["<i8", [1]], ["<f2", [1, 3]], ["<f4", [0, 7]]],
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_snapshot(tmp_path / "one.index", STAMP, SEGMENTS)
    return tmp_path / "one.index"


def sign(content: bytes) -> bytes:
    """Content as somebody writes it who knows the format."""
    return content + hashlib.sha256(content).digest()


def with_header(**changes: object) -> bytes:
    header = {
        "version": 2,
        "generation": STAMP.generation,
        "count": STAMP.count,
        "checksum": STAMP.checksum,
        "mark": STAMP.mark,
        "segments": LAYOUTS,
    }
    encoded = msgspec.msgpack.encode({**header, **changes})
    return b"HEARTHIX" + struct.pack("<I", len(encoded)) + encoded


def body(segments: list[Arrays]) -> bytes:
    return b"".join(array.tobytes() for each in segments for array in each)


def test_what_was_written_is_read(path: Path) -> None:
    found = read_snapshot(path, STAMP)

    assert read_stamp(path) == STAMP
    for wanted, got in zip(SEGMENTS, found, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(wanted, got, strict=True))
        assert [(array.dtype, array.shape) for array in wanted] == [(array.dtype, array.shape) for array in got]


def test_an_empty_index_has_a_file_too(tmp_path: Path) -> None:
    stamp = SnapshotStamp(generation=2, count=0, checksum=checksum_of(IDS[:0]))
    write_snapshot(tmp_path / "none.index", stamp, [])

    assert read_snapshot(tmp_path / "none.index", stamp) == []


def test_the_format_is_the_one_that_is_drawn(path: Path) -> None:
    assert path.read_bytes() == sign(with_header() + body(SEGMENTS))


def test_every_changed_byte_is_noticed(path: Path) -> None:
    content = path.read_bytes()

    for position in range(len(content)):
        path.write_bytes(content[:position] + bytes([content[position] ^ 0x10]) + content[position + 1 :])
        with pytest.raises(SnapshotRefused):
            read_snapshot(path, STAMP)


def test_every_cut_is_noticed(path: Path) -> None:
    content = path.read_bytes()

    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(SnapshotRefused):
            read_snapshot(path, STAMP)


def test_a_longer_file_is_refused(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")

    with pytest.raises(SnapshotRefused, match="bytes, expected"):
        read_snapshot(path, STAMP)


@given(content=st.binary(max_size=300))
def test_foreign_files_are_refused(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "foreign.index"

    for start in (b"", b"HEARTHIX", with_header()):
        path.write_bytes(sign(start + content))
        with pytest.raises(SnapshotRefused):
            read_snapshot(path, STAMP)


@pytest.mark.parametrize(
    "other",
    [
        replace(STAMP, generation=8),
        replace(STAMP, count=5),
        replace(STAMP, checksum=bytes(32)),
        replace(STAMP, mark=6),
    ],
)
def test_another_moment_of_the_store_is_refused(path: Path, other: SnapshotStamp) -> None:
    with pytest.raises(SnapshotRefused, match="generation 7"):
        read_snapshot(path, other)


@pytest.mark.parametrize(
    "header",
    [
        {"version": 1},
        {"version": "1"},
        {"surprise": 1},
        {"segments": []},
        {"segments": [LAYOUTS[0], [["<i8", [1]], ["<f2", [1, -3]], ["<f4", [0, 7]]]]},
        {"segments": [LAYOUTS[0], [["<i8", [2**63 - 1]], ["<f2", [2**63 - 1, 2**63 - 1]]]]},
        {"segments": [LAYOUTS[0], [["|O", [1]], ["<f2", [1, 3]], ["<f4", [0, 7]]]]},
        {"segments": [LAYOUTS[0], [["<f2", [1, 3]], ["<i8", [1]], ["<f4", [0, 7]]]]},
        {"segments": [LAYOUTS[0], [["<i8", [1, 1]], ["<f2", [1, 3]], ["<f4", [0, 7]]]]},
        {"segments": [[], *LAYOUTS]},
    ],
)
def test_headers_that_we_do_not_write_are_refused(path: Path, header: dict[str, object]) -> None:
    path.write_bytes(sign(with_header(**header) + body(SEGMENTS)))

    with pytest.raises(SnapshotRefused):
        read_snapshot(path, STAMP)


@pytest.mark.parametrize("ids", [[3, 8, 5], [3, 3, 8], [3, 5, 9], [5, 8, 13]])
def test_other_ids_are_refused_whatever_the_digest(path: Path, ids: list[int]) -> None:
    path.write_bytes(sign(with_header() + body([arrays(np.array(ids, np.int64)), SEGMENTS[1]])))

    with pytest.raises(SnapshotRefused, match="ids"):
        read_snapshot(path, STAMP)


def test_a_failed_write_leaves_the_old_file(path: Path) -> None:
    before = path.read_bytes()
    path.with_name(f"{path.name}.part").mkdir()

    with pytest.raises(OSError, match="directory"):
        write_snapshot(path, STAMP, SEGMENTS)

    assert path.read_bytes() == before
