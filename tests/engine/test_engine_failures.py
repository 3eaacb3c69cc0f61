"""What goes wrong ends those whom it concerns, once, and nobody else."""

from __future__ import annotations

import pytest

from server.types import Failed
from tests.fakes.backend import FakeBackend
from tests.fakes.engine import NO_END, EngineUnderTest, endings_of, expected_text, text_of


def test_a_failed_batch_fails_its_sequences_only() -> None:
    backend = FakeBackend(num_cells=200)
    engine = EngineUnderTest(backend)
    engine.add("old", [1, 2], max_tokens=5)
    backend.fail_next = True
    outputs = engine.step()
    engine.add("new", [3, 4], max_tokens=5)

    outputs += engine.run_until_idle()

    assert [type(ending) for ending in endings_of(outputs, "old")] == [Failed]
    assert text_of(outputs, "new") == expected_text([3, 4], max_tokens=5)


def test_a_backend_with_fewer_cells_than_promised_fails_no_neighbour() -> None:
    backend = FakeBackend(num_cells=60)
    engine = EngineUnderTest(backend)
    backend.num_cells = 30  # the ledger believes in 60
    for n in range(2):
        engine.add(str(n), [n + 1] * 10, max_tokens=12)

    outputs = engine.run_until_idle()

    assert [text_of(outputs, str(n)) for n in range(2)] == [
        expected_text([n + 1] * 10, max_tokens=12) for n in range(2)
    ]


def test_logits_that_are_no_numbers_fail_one_sequence_only() -> None:
    backend = FakeBackend(num_cells=200)
    backend.poison = 49
    engine = EngineUnderTest(backend)
    engine.add("poisoned", [1, 49], max_tokens=5)
    engine.add("sound", [3, 1, 4], max_tokens=5)

    outputs = engine.run_until_idle()

    assert [type(ending) for ending in endings_of(outputs, "poisoned")] == [Failed]
    assert text_of(outputs, "sound") == expected_text([3, 1, 4], max_tokens=5)


def test_fail_all_ends_every_request() -> None:
    engine = EngineUnderTest(FakeBackend())
    engine.add("a", [1], max_tokens=30)
    engine.add("b", [2], max_tokens=30)
    engine.step()

    outputs = engine.fail_all("a bug")

    assert {owner for owner, event in outputs if isinstance(event, Failed)} == {"a", "b"}


def test_a_request_past_its_deadline_ends_before_anything_is_computed_for_it() -> None:
    backend = FakeBackend()
    engine = EngineUnderTest(backend)
    engine.add("late", [1, 2, 3], deadline_at=0.0)
    engine.add("in time", [3, 1, 4], deadline_at=1e9)

    outputs = engine.run_until_idle()

    [ending] = endings_of(outputs, "late")
    assert isinstance(ending, Failed)
    assert ending.code == "deadline_exceeded"
    assert text_of(outputs, "in time") == expected_text([3, 1, 4], max_tokens=8)
    assert backend.batch_sizes[0] == 3


def test_a_deadline_ends_a_running_request_and_gives_its_cells_back() -> None:
    engine = EngineUnderTest(FakeBackend())
    engine.add("a", [5, 6, 7, 5, 6], max_tokens=50, deadline_at=6.0, sampling=NO_END)

    outputs = engine.run_until_idle()

    [ending] = endings_of(outputs, "a")
    assert isinstance(ending, Failed)
    assert text_of(outputs, "a")


def test_an_idle_engine_notices_what_was_not_given_back() -> None:
    engine = EngineUnderTest(FakeBackend())
    engine.add("a", [1, 2, 3])
    engine.run_until_idle()
    engine.engine._scheduler._kv_cache._free_ids.pop()

    with pytest.raises(AssertionError, match="ids leaked"):
        engine.engine.wait_for_work()


def test_a_bug_in_a_step_loses_no_ending() -> None:
    engine = EngineUnderTest(FakeBackend())
    engine.add("late", [1, 2, 3], deadline_at=0.0)
    engine.add("a", [1], max_tokens=30)
    engine.engine._scheduler.schedule = None  # type: ignore[assignment, method-assign]

    with pytest.raises(TypeError):
        engine.step()
    outputs = engine.fail_all("a bug")

    assert {owner for owner, event in outputs if isinstance(event, Failed)} == {"late", "a"}
