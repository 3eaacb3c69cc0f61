from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from server.encoders.fingerprint import model_fingerprint
from server.types import ModelFacts

FACTS = ModelFacts(context_length=512, dimensions=8, prompts={"query": "q: "}, details={"pooling": "mean"})
LARGE = bytes(range(256)) * (5 << 12)  # 5 MiB: more than is read


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model" / "1_Pooling").mkdir(parents=True)
    (tmp_path / "model" / "model.safetensors").write_bytes(LARGE)
    (tmp_path / "model" / "1_Pooling" / "config.json").write_text("{}")
    return tmp_path / "model"


def test_the_same_weights_have_the_same_fingerprint_anywhere_and_at_any_time(folder: Path, tmp_path: Path) -> None:
    before = model_fingerprint(folder, FACTS)
    os.utime(folder / "model.safetensors", (1, 1))
    (folder / "README.md").write_text("for people")

    moved = folder.rename(tmp_path / "elsewhere")

    assert model_fingerprint(moved, FACTS) == before


@pytest.mark.parametrize(
    "changed",
    [
        {"context_length": 256},
        {"dimensions": 4},
        {"prompts": {"query": "Q: "}},
        {"details": {"pooling": "cls"}},
    ],
)
def test_settings_change_it(folder: Path, changed: dict[str, object]) -> None:
    assert model_fingerprint(folder, msgspec.structs.replace(FACTS, **changed)) != model_fingerprint(folder, FACTS)


def test_the_kernel_does_not(folder: Path) -> None:
    other = msgspec.structs.replace(FACTS, details={"pooling": "mean", "dtype": "bfloat16"}, load_s=3)

    assert model_fingerprint(folder, other) == model_fingerprint(folder, FACTS)


@pytest.mark.parametrize("size", [len(LARGE) - 1, len(LARGE) + 1])
def test_the_size_of_a_file_changes_it(folder: Path, size: int) -> None:
    before = model_fingerprint(folder, FACTS)
    (folder / "model.safetensors").write_bytes((LARGE * 2)[:size])

    assert model_fingerprint(folder, FACTS) != before


def test_a_change_in_the_middle_of_large_weights_is_seen(folder: Path) -> None:
    before = model_fingerprint(folder, FACTS)
    middle = len(LARGE) // 3
    (folder / "model.safetensors").write_bytes(LARGE[:middle] + bytes(1 << 18) + LARGE[middle + (1 << 18) :])

    assert model_fingerprint(folder, FACTS) != before


def test_a_small_file_is_read_whole(folder: Path) -> None:
    before = model_fingerprint(folder, FACTS)
    (folder / "1_Pooling" / "config.json").write_text("[]")

    assert model_fingerprint(folder, FACTS) != before


def test_a_split_gguf_is_all_its_parts(tmp_path: Path) -> None:
    first, second = (tmp_path / f"m-{part:05}-of-00002.gguf" for part in (1, 2))
    first.write_bytes(b"a")
    second.write_bytes(b"b")
    before = model_fingerprint(first, FACTS)

    second.write_bytes(b"c")

    assert model_fingerprint(first, FACTS) != before


def test_a_renamed_file_is_the_same_model(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"weights")
    before = model_fingerprint(tmp_path / "m.gguf", FACTS)

    assert model_fingerprint((tmp_path / "m.gguf").rename(tmp_path / "n.gguf"), FACTS) == before
