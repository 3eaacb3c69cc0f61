from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from server.encoders.encoder import Rows
from server.encoders.vector_file import VectorFile, fingerprint_of
from server.errors import LoadFailed
from server.types import ModelFacts

FACTS = ModelFacts(context_length=8, dimensions=3, details={"dtype": "float32", "kernel": "torch (measured)"})


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "sub" / "vectors.sqlite"


def row(number: float) -> Rows:
    return np.full(3, number, dtype=np.float32)


def open_file(path: Path, fingerprint: str = "model", *, max_bytes: int = 1 << 30) -> closing[VectorFile]:
    return closing(VectorFile(path, fingerprint, row_shape=(3,), max_bytes=max_bytes))


def test_rows_are_found_after_a_restart(path: Path) -> None:
    with open_file(path) as file:
        file.write(b"a", row(1))
        file.write(b"b", row(2))

    with open_file(path) as file:
        found = file.read([b"a", b"b", b"c"])

    assert found.keys() == {b"a", b"b"}
    np.testing.assert_array_equal(found[b"b"], row(2))


def test_models_share_a_file_but_no_rows(path: Path) -> None:
    with open_file(path, "one") as one, open_file(path, "other"):
        one.write(b"a", row(1))

    with open_file(path, "one") as one, open_file(path, "other") as other:
        assert one.read([b"a"]) and not other.read([b"a"])


def test_the_oldest_rows_go_when_it_is_full(path: Path) -> None:
    for start in range(0, 3000, 1000):
        with open_file(path, max_bytes=100_000) as file:
            for number in range(start, start + 1000):
                file.write(number.to_bytes(4), row(number))

    with open_file(path, max_bytes=100_000) as file:
        assert not file.read([(0).to_bytes(4)])
        assert file.read([(2999).to_bytes(4)])


def test_scores_keep_their_shape(path: Path) -> None:
    with closing(VectorFile(path, "reranker", row_shape=())) as file:
        file.write(b"a", np.array(2.5, dtype=np.float32))
    with closing(VectorFile(path, "reranker", row_shape=())) as file:
        assert file.read([b"a"])[b"a"].shape == ()


def test_another_file_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("notes, not vectors; longer than the header of a database, which is a hundred bytes" * 3)

    with pytest.raises(LoadFailed, match=r"cache_file vectors\.sqlite cannot be used: .*not a database; move it away"):
        open_file(path)

    assert path.read_text().startswith("notes")


def test_a_damaged_row_counts_as_unknown(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with open_file(path) as file:
        file.write(b"a", row(1))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE vectors SET row = x'00'")

    with open_file(path) as file, caplog.at_level(logging.WARNING):
        assert file.read([b"a"]) == {}
    assert "vector cache cannot be read" in caplog.text


def facts_with(**details: str) -> ModelFacts:
    return ModelFacts(context_length=8, dimensions=3, details={**FACTS.details, **details})


@pytest.mark.parametrize("name", ["runtime", "device", "dtype", "kernel", "build", "gpu_layers", "repacked_weights"])
def test_fingerprints_change_with_whatever_computes(tmp_path: Path, name: str) -> None:
    """llama.cpp on a GPU, or built anew, rounds otherwise than the one that wrote the file."""
    one, other = (fingerprint_of(tmp_path, facts_with(**{name: value})) for value in ("one", "other"))

    assert one != other


def test_fingerprints_change_with_weights_and_kernel_only(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    before = fingerprint_of(tmp_path, FACTS)

    assert fingerprint_of(tmp_path, facts_with(kernel="torch (remembered)", threads="7")) == before
    assert fingerprint_of(tmp_path, facts_with(dtype="bfloat16")) != before

    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    assert fingerprint_of(tmp_path, FACTS) != before
