from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.bindings.gguf_header import GgufHeader, read_header
from server.errors import LoadFailed
from tests.fakes.gguf_file import Value, write_gguf

VALUES: dict[str, Value] = {
    "general.architecture": "llama",
    "llama.block_count": 3,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": [4, 0, 2],
    "llama.rope.freq_base": 10000.0,
    "llama.attention.causal": False,
    "tokenizer.ggml.tokens": ["<s>", "a", "bc"],
    "tokenizer.ggml.scores": [0.0, 1.0, 2.0],
}
TENSORS = {
    "token_embd.weight": np.zeros((3, 8), np.float32),
    "blk.0.attn_q.weight": np.zeros((8, 8), np.float16),
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.gguf"
    write_gguf(path, VALUES, TENSORS)
    return path


def test_a_header_tells_values_and_tensors(model: Path) -> None:
    header = read_header(model)

    assert header.architecture == "llama"
    assert header.number("attention.head_count") == 4
    assert header.values["llama.attention.causal"] is False
    assert [(each.name, each.shape, each.size_bytes) for each in header.tensors] == [
        ("token_embd.weight", (8, 3), 96),
        ("blk.0.attn_q.weight", (8, 8), 128),
    ]


def test_of_vocabularies_only_the_length_is_kept(model: Path) -> None:
    header = read_header(model)

    assert header.array_lengths == {"tokenizer.ggml.tokens": 3, "tokenizer.ggml.scores": 3}
    assert "tokenizer.ggml.tokens" not in header.values


def test_what_differs_by_layer_is_told_by_layer(model: Path) -> None:
    header = read_header(model)

    assert header.by_layer("attention.head_count_kv") == [4, 0, 2]
    assert header.by_layer("attention.head_count") == [4, 4, 4]
    assert header.number("attention.head_count_kv") == 4


def test_tensors_are_found_by_name(model: Path) -> None:
    header = read_header(model)

    assert header.has_tensor("output.weight", "token_embd.weight")
    assert not header.has_tensor("output.weight")


def test_a_model_in_several_files_is_read_whole(tmp_path: Path) -> None:
    first, second = (tmp_path / f"m-0000{number}-of-00002.gguf" for number in (1, 2))
    write_gguf(first, VALUES, {"a": TENSORS["token_embd.weight"]})
    write_gguf(second, {"split.no": 1}, {"b": TENSORS["token_embd.weight"]})

    header = read_header(first)

    assert [tensor.name for tensor in header.tensors] == ["a", "b"]
    assert header.number("block_count") == 3


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    path = tmp_path / "m-00001-of-00002.gguf"
    write_gguf(path, VALUES, TENSORS)

    with pytest.raises(LoadFailed, match=r"cannot read m-00002-of-00002\.gguf: No such file"):
        read_header(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a GGUF file"),
        (b"GGML" + bytes(100), "not a GGUF file"),
        (b"GGUF" + struct.pack("<IQQ", 9, 0, 0), "GGUF version 9"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0), "damaged header: it claims"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1), "damaged header"),
    ],
)
def test_what_is_no_model_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(content)

    with pytest.raises(LoadFailed, match=reason):
        read_header(path)


@given(data=st.data())
def test_a_damaged_header_is_refused_or_read_but_nothing_else(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "m.gguf"
    write_gguf(path, VALUES, TENSORS)
    content = bytearray(path.read_bytes())
    position = data.draw(st.integers(4, len(content) - 1))
    content[position] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(4, len(content)))])

    try:
        header = read_header(path)
    except LoadFailed:
        return
    assert isinstance(header, GgufHeader)
