from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from server.config.schema import ModelConfig
from server.workers.messages import WorkerSpec
from server.workers.tuning import RuntimeSettings, Tuning
from server.workers.tuning_cache import MAX_ATTEMPTS, TuningCache, open_cache

BEST = RuntimeSettings(kv="unified", flash_attention=True, kv_type="f16", threads=2, ubatch_tokens=512)
TUNING = Tuning(best=BEST, trials=(), took_s=1.5, is_complete=True, measured_at="2026-01-01T00:00:00Z")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF")
    return path


def cache_of(weights: Path, *, num_threads: int = 2, portable: bool = False, **settings: object) -> TuningCache:
    config = ModelConfig.model_validate(
        {"id": "m", "kind": "chat", "backend": "llama_cpp", "source": f"file:{weights}", **settings}
    )
    spec = WorkerSpec(
        model_json="",
        weights_path=str(weights),
        endpoint="",
        num_threads=num_threads,
        tuning_dir=str(weights.parent / "tuning"),
        portable_kernels=portable,
    )
    cache = open_cache(config, spec)
    assert cache is not None
    return cache


def test_what_was_found_is_there_for_the_next_process(weights: Path) -> None:
    assert cache_of(weights).load() is None

    cache_of(weights).save(TUNING)

    assert cache_of(weights).load() == TUNING
    assert len(list((weights.parent / "tuning").iterdir())) == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"context": 512},
        {"max_sequences": 4},
        {"kv_cells": 4096},
        {"kv": "streams"},
        {"kv_type": "q8_0"},
        {"flash_attention": "on"},
        {"gpu_layers": 0},
        {"batch_tokens": 512},
        {"ubatch_tokens": 256},
        {"threads": 2},
        {"num_threads": 1},
        {"portable": True},
        {"sha256": "0" * 64},
    ],
    ids=str,
)
def test_whatever_changes_the_figures_is_measured_again(weights: Path, changed: dict[str, object]) -> None:
    cache_of(weights).save(TUNING)

    assert cache_of(weights, **changed).load() is None  # type: ignore[arg-type]  # settings and facts of the machine


def test_other_weights_are_measured_again(weights: Path) -> None:
    cache_of(weights).save(TUNING)
    weights.write_bytes(b"GGUF, but another")

    assert cache_of(weights).load() is None


def test_what_does_not_matter_is_not_measured_again(weights: Path) -> None:
    cache_of(weights).save(TUNING)

    assert cache_of(weights, description="other words", defaults={"temperature": 0.1}, lazy=True).load() == TUNING


@pytest.mark.parametrize("content", [b"", b"not json", b"{}", b'{"model": "m", "key": {}}', b"\xff\xfe"])
def test_a_damaged_file_counts_as_none(weights: Path, content: bytes) -> None:
    cache = cache_of(weights)
    cache.save(TUNING)
    cache.path.write_bytes(content)

    assert cache.load() is None
    cache.save(TUNING)
    assert cache.load() == TUNING


def test_searches_that_die_are_not_begun_for_ever(weights: Path) -> None:
    """llama.cpp ends the process on what it does not like; the restarted worker must get past it."""
    for _ in range(MAX_ATTEMPTS):
        assert cache_of(weights).may_measure()
        cache_of(weights).begin()

    assert not cache_of(weights).may_measure()
    cache_of(weights).save(TUNING)
    assert cache_of(weights).may_measure()


def test_a_search_that_dies_takes_no_earlier_finding_with_it(weights: Path) -> None:
    cache_of(weights).save(TUNING)

    cache_of(weights).begin()

    assert cache_of(weights).load() == TUNING


def test_a_folder_that_cannot_be_written_only_costs_the_memory(weights: Path) -> None:
    (weights.parent / "tuning").write_text("a file where the folder belongs")

    cache_of(weights).save(TUNING)

    assert cache_of(weights).load() is None


def test_the_file_can_be_read_by_people(weights: Path) -> None:
    cache_of(weights).save(TUNING)

    record = msgspec.json.decode(cache_of(weights).path.read_bytes())

    assert record["model"] == "m"
    assert record["key"]["max_sequences"] == "16"
    assert record["tuning"]["best"]["kv"] == "unified"
