"""What is planned with: what was measured, else what is estimated."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.config.schema import ModelConfig
from server.device_needs import DeviceNeed, MemoryEstimate
from server.errors import LoadFailed, WeightsError
from server.models.footprints import Footprint, Footprints
from server.models.memory_needs import MemoryNeed, MemoryNeeds
from server.models.memory_plan import Memory
from server.models.weights import WeightsStore

ESTIMATE = MemoryEstimate(needs=(DeviceNeed(device="cpu", weights=60), DeviceNeed(device="cuda:0", kv=40)))


@pytest.fixture
def model(tmp_path: Path) -> ModelConfig:
    (tmp_path / "m.gguf").write_bytes(b"weights")
    return ModelConfig(id="m", kind="chat", backend="llama_cpp", source=f"file:{tmp_path}/m.gguf")


@pytest.fixture
def needs(tmp_path: Path) -> MemoryNeeds:
    store = WeightsStore(tmp_path / "weights", tmp_path / "cache")
    return MemoryNeeds(store, Footprints(tmp_path / "footprints"), lambda _config, _weights: ESTIMATE)


def test_estimates_serve_until_something_was_measured(needs: MemoryNeeds, model: ModelConfig) -> None:
    assert needs.find(model).memory == Memory(60, 40)

    needs.remember(model, memory_bytes=55, load_s=1.5)

    assert needs.find(model).memory == Memory(55, 40)
    assert needs.find(model).measured == Footprint(model_id="m", memory_bytes=55, load_s=1.5)


def test_who_takes_longer_to_say_is_asked_until_something_was_measured(tmp_path: Path, model: ModelConfig) -> None:
    asked: list[str] = []
    answers: list[MemoryEstimate | LoadFailed] = [ESTIMATE, LoadFailed("llama.cpp says nothing")]

    def ask(config: ModelConfig, _weights: Path | None) -> MemoryEstimate:
        asked.append(config.id)
        answer = answers.pop(0)
        if isinstance(answer, LoadFailed):
            raise answer
        return answer

    by_rule = MemoryEstimate(needs=(DeviceNeed(device="cpu", weights=70),))
    store = WeightsStore(tmp_path / "weights", tmp_path / "cache")
    needs = MemoryNeeds(store, Footprints(tmp_path / "footprints"), lambda *_: by_rule, ask=ask)

    found = [needs.find(model).memory, needs.find(model).memory]
    needs.remember(model, memory_bytes=55, load_s=1)
    found.append(needs.find(model).memory)

    assert found == [Memory(60, 40), Memory(70), Memory(55)]
    assert asked == ["m", "m"]


def test_the_most_that_was_ever_taken_counts_and_the_last_load(needs: MemoryNeeds, model: ModelConfig) -> None:
    for memory_bytes, load_s in ((100, 9.0), (150, 9.0), (80, 2.0)):
        needs.remember(model, memory_bytes=memory_bytes, load_s=load_s)

    assert needs.find(model).measured == Footprint(model_id="m", memory_bytes=150, load_s=2.0)


def test_what_no_worker_looks_at_does_not_make_another_model(needs: MemoryNeeds, model: ModelConfig) -> None:
    needs.remember(model, memory_bytes=55, load_s=1)

    relabelled = model.model_copy(update={"description": "Talks.", "ttl_s": 5.0, "lazy": True, "aliases": ("x",)})
    smaller = model.model_copy(update={"context": 512})

    assert needs.find(relabelled).measured is not None
    assert needs.find(smaller).measured is None


def test_other_weights_are_another_model(needs: MemoryNeeds, model: ModelConfig, tmp_path: Path) -> None:
    needs.remember(model, memory_bytes=55, load_s=1)

    (tmp_path / "m.gguf").write_bytes(b"more weights")

    assert needs.find(model).measured is None


def test_weights_that_are_not_there_or_cannot_be_read_need_nothing_yet(
    needs: MemoryNeeds, model: ModelConfig, tmp_path: Path
) -> None:
    """The load will say what is wrong with them."""

    def refuse(_config: ModelConfig, _weights: Path | None) -> MemoryEstimate:
        raise WeightsError("the header of m.gguf is broken")

    store = WeightsStore(tmp_path / "weights", tmp_path / "cache")
    unreadable = MemoryNeeds(store, Footprints(tmp_path / "footprints"), refuse)
    missing = model.model_copy(update={"source": "file:/nowhere.gguf"})

    assert unreadable.find(model) == MemoryNeed(None, None, "the header of m.gguf is broken")
    assert needs.find(missing).memory == Memory()


def test_a_footprint_that_cannot_be_read_or_written_counts_as_none(
    needs: MemoryNeeds, model: ModelConfig, tmp_path: Path
) -> None:
    needs.remember(model, memory_bytes=55, load_s=1)
    [file] = (tmp_path / "footprints").iterdir()
    file.write_text("{}")
    assert needs.find(model).measured is None

    file.unlink()
    (tmp_path / "footprints").rmdir()
    (tmp_path / "footprints").write_text("in the way")

    needs.remember(model, memory_bytes=55, load_s=1)
    assert needs.find(model).memory == Memory(60, 40)
