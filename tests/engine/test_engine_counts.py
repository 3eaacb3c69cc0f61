"""What an engine tells of itself, for heartbeats."""

from __future__ import annotations

from tests.fakes.backend import FakeBackend
from tests.fakes.engine import EngineUnderTest


def test_tokens_steps_and_prefixes_are_counted() -> None:
    backend = FakeBackend(num_cells=400, max_sequences=8, max_batch_tokens=16)
    engine = EngineUnderTest(backend, drafts=False)
    prompt = [n % 40 + 1 for n in range(60)]
    engine.add("first", prompt, max_tokens=2)
    engine.run_until_idle()
    engine.add("second", prompt, max_tokens=2)
    engine.run_until_idle()

    counts = engine.engine.counts()

    assert counts.num_tokens == sum(backend.batch_sizes)
    assert counts.num_steps == len(backend.batch_sizes)
    assert (counts.num_prefix_tokens, counts.num_prefix_hits) == (120, 59)
    assert (counts.num_cells, counts.num_used_cells) == (400, 0)


def test_what_is_in_hand_is_told() -> None:
    engine = EngineUnderTest(FakeBackend(num_cells=400, max_sequences=8, max_batch_tokens=16), max_running=1)
    engine.add("first", [1] * 10, max_tokens=50)
    engine.add("second", [2] * 10, max_tokens=50)
    engine.step()

    counts = engine.engine.counts()

    assert (engine.engine.num_running, engine.engine.num_waiting) == (1, 1)
    assert counts.num_used_cells == 10


def test_sequences_that_give_way_are_counted() -> None:
    engine = EngineUnderTest(FakeBackend(num_cells=100, max_sequences=4), drafts=False)
    engine.engine._scheduler._answer_lengths._mean = 1  # as if all answers had been short lately
    for n in (3, 4, 5, 6):
        engine.add(str(n), [n] * 8, max_tokens=60)
    engine.run_until_idle()

    assert engine.engine.counts().num_preemptions > 0
