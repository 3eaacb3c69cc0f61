"""The choice without measuring. tests/integration/test_runtime_choice_real.py measures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from server.bindings.cpu import Cpu
from server.config.schema import ModelConfig
from server.errors import LoadFailed
from server.workers import context_choice
from server.workers.context_choice import choose_context
from server.workers.messages import WorkerSpec
from server.workers.runtime_choice import RuntimeChoice, choose_runtime
from server.workers.tuning import MAX_SEARCHES, RuntimeSettings, Trial, Tuning
from server.workers.tuning_cache import MAX_ATTEMPTS, open_cache


@pytest.fixture(autouse=True)
def _without_amx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context_choice, "read_cpu", lambda: Cpu("plain", frozenset({"avx2"})))


@dataclass
class Model:
    """All that the choice asks of a model when nothing is measured."""

    can_share_prefixes: bool = True
    has_window: bool = False


def spec(folder: Path | None = None, *, cores: int = 4) -> WorkerSpec:
    tuning_dir = str(folder) if folder else None
    return WorkerSpec(model_json="", weights_path=__file__, endpoint="", num_threads=cores, tuning_dir=tuning_dir)


def model_config(**settings: object) -> ModelConfig:
    return ModelConfig.model_validate(
        {"id": "m", "kind": "chat", "backend": "llama_cpp", "source": "file:m.gguf", **settings}
    )


def choose(
    folder: Path | None = None, *, pinned: int = 0, gpu: bool = False, can_share: bool = True, **settings: object
) -> RuntimeChoice:
    config = model_config(**settings)
    model = cast(Any, Model(can_share))
    length = config.context or 8192
    return choose_runtime(model, config, spec(folder), context_length=length, num_pinned=pinned, has_gpu_layers=gpu)


def test_the_rule_is_one_pool_of_two_contexts_and_idle_ids() -> None:
    options = choose().options

    assert (options.streams, options.num_cells, options.max_sequences) == (False, 16384, 16 + 64)
    assert (options.num_threads, options.max_batch_tokens, options.max_ubatch_tokens) == (4, 2048, 512)


def test_the_rule_is_streams_where_each_can_hold_a_context() -> None:
    options = choose(context=1024, kv_cells=16384).options

    assert (options.streams, options.num_cells, options.max_sequences) == (True, 16384, 16)


def test_flash_attention_goes_by_the_device_without_a_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose().options.flash_attention

    monkeypatch.setattr(context_choice, "read_cpu", lambda: Cpu("with AMX", frozenset({"amx_tile"})))

    assert not choose().options.flash_attention
    assert choose(gpu=True).options.flash_attention


def test_a_small_kv_type_brings_flash_attention_along() -> None:
    options = choose(kv_type="q8_0").options

    assert (options.kv_type, options.flash_attention) == ("q8_0", True)


def test_pinned_prefixes_get_ids_and_in_streams_cells_of_their_own() -> None:
    unified = choose(pinned=3).options
    streams = choose(pinned=3, context=1024, kv_cells=16384).options

    assert (unified.num_cells, unified.max_sequences) == (16384, 16 + 3 + 64)
    assert (streams.num_cells, streams.max_sequences) == (19 * 1024, 19)


def test_models_that_cannot_share_keep_no_idle_ids() -> None:
    assert choose(can_share=False).options.max_sequences == 16


def test_ids_end_where_llama_cpp_ends() -> None:
    assert choose(max_sequences=250).options.max_sequences == 256
    with pytest.raises(LoadFailed, match="max_sequences and 1 pinned prefixes are 257"):
        choose(max_sequences=256, pinned=1)


def test_streams_without_room_are_refused() -> None:
    with pytest.raises(LoadFailed, match=r"kv_cells >= max_sequences x context = 16384, but it is 1024;"):
        choose(kv="streams", context=1024, kv_cells=1024)


def test_more_context_than_the_model_has_is_refused() -> None:
    assert (choose_context(None, own=4096), choose_context(None, own=131072), choose_context(64, own=128)) == (
        *(4096, 8192, 64),
    )
    with pytest.raises(LoadFailed, match="context is 129 but the model was made for 128 tokens"):
        choose_context(129, own=128)


def test_details_say_why_each_value_was_taken() -> None:
    details = choose(flash_attention="on", threads=4, context=1024, kv_cells=16384).details

    assert details == {
        "kv": "streams (rule)",
        "flash_attention": "on (configured)",
        "kv_type": "f16 (rule)",
        "threads": "4 (configured)",
        "ubatch_tokens": "512 (rule)",
        "batch_tokens": "2048",
    }


def test_details_say_what_streams_would_need() -> None:
    assert choose().details["kv"] == "unified (streams need kv_cells: 131072)"


def trial(settings: RuntimeSettings) -> Trial:
    return Trial(settings=settings, prefill_tokens_per_s=1.0, unrelated_step_ms=1.0, shared_step_ms=1.0)


def remember(folder: Path, best: RuntimeSettings, other: RuntimeSettings) -> None:
    cache = open_cache(model_config(), spec(folder))
    assert cache is not None
    trials = (trial(best), trial(other))
    cache.save(Tuning(best=best, trials=trials, took_s=1.0, is_complete=True, measured_at="2026-01-01T00:00:00Z"))


UNIFIED = RuntimeSettings(kv="unified", flash_attention=True, kv_type="f16", threads=3, ubatch_tokens=512)


def test_what_was_measured_before_is_taken(tmp_path: Path) -> None:
    remember(tmp_path, UNIFIED, msgspec.structs.replace(UNIFIED, flash_attention=False, threads=4))

    choice = choose(tmp_path)

    assert (choice.options.flash_attention, choice.options.num_threads) == (True, 3)
    assert choice.details["flash_attention"] == "on (remembered)"
    assert choice.details["kv_type"] == "f16 (rule)"  # not compared with any other


def test_a_search_that_ran_out_of_time_is_made_again_but_not_for_ever(tmp_path: Path) -> None:
    """The fake model cannot run: a search that begins fails, and is known by the rule that serves then."""
    cache = open_cache(model_config(), spec(tmp_path))
    assert cache is not None
    unfinished = Tuning(best=UNIFIED, trials=(trial(UNIFIED),), took_s=1.0, is_complete=False, measured_at="")

    cache.save(unfinished)
    assert choose(tmp_path).options.num_threads == 4

    cache.save(msgspec.structs.replace(unfinished, num_searches=MAX_SEARCHES))
    assert choose(tmp_path).options.num_threads == UNIFIED.threads


def test_a_memory_of_what_may_not_be_chosen_is_ignored(tmp_path: Path) -> None:
    """A file that somebody edited: streams do not fit here."""
    remember(tmp_path, msgspec.structs.replace(UNIFIED, kv="streams"), UNIFIED)

    assert not choose(tmp_path).options.streams


def test_a_failure_to_measure_fails_no_load(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The fake model cannot run, so measuring fails each time; after a while it is not tried any more."""
    for _ in range(MAX_ATTEMPTS + 1):
        assert choose(tmp_path).details["flash_attention"] == "on (rule)"

    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == [
        *["measuring failed; fixed rules are used"] * MAX_ATTEMPTS,
        "measuring has not come to its end before; fixed rules are used",
    ]


def test_nothing_is_measured_where_everything_is_configured(tmp_path: Path) -> None:
    choose(tmp_path, kv="unified", kv_type="f16", flash_attention="off", threads=4, ubatch_tokens=512)

    assert list(tmp_path.iterdir()) == []
