"""Several tenants on one engine: who floods it delays themselves, and nobody's answer changes."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.engine.output_processor import Output
from server.types import Delta, Finished
from tests.fakes.backend import FakeBackend
from tests.fakes.engine import NO_END, EngineUnderTest, endings_of, expected_text, text_of

LONG = 100


def flooded(
    *, num_places: int = 4, num_cells: int = 4000, has_streams: bool = False, **urgency: float
) -> EngineUnderTest:
    """An engine on which one tenant runs as many long answers as may run, with as many waiting."""
    engine = EngineUnderTest(
        FakeBackend(num_cells=num_cells, max_sequences=num_places, max_batch_tokens=64, has_streams=has_streams),
        drafts=False,
    )
    for n in range(2 * num_places):
        engine.add(f"flood {n}", [n + 1] * 5, max_tokens=LONG, sampling=NO_END, tenant="flood", **urgency)
    engine.step()
    engine.step()
    assert engine.engine.num_running == num_places
    return engine


def steps_until(engine: EngineUnderTest, request_id: str) -> int:
    """Steps until a request gets its first word."""
    for step in range(1, 1000):
        if any(owner == request_id and isinstance(event, Delta) for owner, event in engine.step()):
            return step
    raise AssertionError(f"{request_id} never got a word")


def talking(engine: EngineUnderTest) -> set[str]:
    """Who gets a word in the next step."""
    return {owner for owner, event in engine.step() if isinstance(event, Delta)}


@pytest.mark.parametrize("has_streams", [False, True])
def test_a_newcomer_does_not_wait_for_the_end_of_anothers_long_answer(has_streams: bool) -> None:
    engine = flooded(has_streams=has_streams, num_cells=400 if has_streams else 4000)

    engine.add("alone", [40] * 5, max_tokens=3, tenant="other")

    assert steps_until(engine, "alone") <= 2


@pytest.mark.parametrize("has_streams", [False, True])
def test_the_step_of_a_newcomers_first_word_is_its_own(has_streams: bool) -> None:
    engine = flooded(has_streams=has_streams, num_cells=800 if has_streams else 4000)

    engine.add("alone", list(range(1, 50)), max_tokens=3, tenant="other")

    assert talking(engine) == {"alone"}
    assert len(talking(engine)) == 4


def test_a_prompt_that_steps_back_stops_nobody() -> None:
    engine = EngineUnderTest(FakeBackend(num_cells=4000, max_sequences=4, max_batch_tokens=64), drafts=False)
    engine.add("ahead", [1] * 5, max_tokens=LONG, sampling=NO_END, tenant="first")
    engine.step()
    engine.add("background", list(range(1, 50)), max_tokens=3, tenant="other", priority=1)

    assert talking(engine) == {"ahead", "background"}


def test_whoever_begins_in_anothers_place_is_told_to_be_computed() -> None:
    """As many wait as before: one has begun, and another one has been put back."""
    engine = flooded()

    engine.add("alone", [40] * 5, max_tokens=3, tenant="other")
    steps_until(engine, "alone")

    assert engine.begun == ["flood 0", "flood 1", "flood 2", "flood 3", "alone"]


def test_a_newcomer_of_the_same_tenant_does() -> None:
    engine = flooded()

    engine.add("alone", [40] * 5, max_tokens=3, tenant="flood")

    assert steps_until(engine, "alone") > LONG


def test_a_newcomer_finds_cells_where_another_has_them_all() -> None:
    """Places are left, but each answer may need a quarter of the cells."""
    engine = EngineUnderTest(FakeBackend(num_cells=200, max_sequences=8, max_batch_tokens=64), drafts=False)
    for n in range(6):
        engine.add(f"flood {n}", [n + 1] * 40, max_tokens=60, sampling=NO_END, tenant="flood")
    engine.step()
    assert 0 < engine.engine.num_running < 6

    engine.add("alone", [40] * 20, max_tokens=3, tenant="other")

    assert steps_until(engine, "alone") <= 4


def test_who_gives_way_says_the_same_in_the_end() -> None:
    engine = EngineUnderTest(FakeBackend(num_cells=4000, max_sequences=4), drafts=False)
    for n in range(8):
        engine.add(f"flood {n}", [n + 1] * 5, max_tokens=60, tenant="flood")
    outputs = engine.step() + engine.step()

    engine.add("alone", [40] * 5, max_tokens=3, tenant="other")
    outputs += engine.run_until_idle()

    assert text_of(outputs, "alone") == expected_text([40] * 5, max_tokens=3)
    for n in range(8):
        assert text_of(outputs, f"flood {n}") == expected_text([n + 1] * 5, max_tokens=60)


def test_nobody_gives_way_to_who_steps_back() -> None:
    engine = flooded()

    engine.add("background", [40] * 5, max_tokens=3, tenant="other", priority=1)

    assert steps_until(engine, "background") > LONG


def test_only_one_makes_room_for_one() -> None:
    engine = flooded()
    engine.add("alone", [40] * 5, max_tokens=LONG, sampling=NO_END, tenant="other")
    engine.step()

    running = {owner for owner, event in engine.step() if isinstance(event, Delta)}

    assert "alone" in running
    assert sum(owner.startswith("flood") for owner in running) == 3


@pytest.mark.parametrize(("weight", "share"), [(1.0, 0.5), (3.0, 0.75)])
def test_tenants_that_want_all_of_it_get_it_by_their_weights(weight: float, share: float) -> None:
    engine = EngineUnderTest(FakeBackend(num_cells=8000, max_sequences=8, max_batch_tokens=64), drafts=False)
    for n in range(40):
        engine.add(f"light {n}", [n + 1] * 4, max_tokens=20, sampling=NO_END, tenant="light")
        engine.add(f"heavy {n}", [49 - n] * 4, max_tokens=20, sampling=NO_END, tenant="heavy", weight=weight)

    said = Counter(owner.split()[0] for _ in range(100) for owner, event in engine.step() if isinstance(event, Delta))

    assert said["heavy"] / said.total() == pytest.approx(share, abs=0.06)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.sampled_from("abc"), st.integers(1, 30)), min_size=1, max_size=30),
    st.integers(1, 5),
    st.integers(80, 400),
    st.booleans(),
)
def test_everybody_gets_their_whole_answer_once(
    arrivals: list[tuple[int, str, int]], num_places: int, num_cells: int, has_streams: bool
) -> None:
    """Whoever gives way to whom, and however often."""
    engine = EngineUnderTest(
        FakeBackend(num_cells=num_cells, max_sequences=num_places, max_batch_tokens=16, has_streams=has_streams)
    )
    outputs: list[Output] = []
    for step in range(41):
        for index, (arrival, tenant, length) in enumerate(arrivals):
            if arrival == step:
                engine.add(str(index), [index + 1] * length, max_tokens=12, tenant=tenant)
        outputs += engine.step()
    outputs += engine.run_until_idle()

    for index, (_, _, length) in enumerate(arrivals):
        assert text_of(outputs, str(index)) == expected_text([index + 1] * length, max_tokens=12)
        assert [type(ending) for ending in endings_of(outputs, str(index))] == [Finished]


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 6), st.lists(st.integers(1, 12), min_size=5, max_size=15))
def test_however_much_one_tenant_wants_another_begins_within_three_steps(num_places: int, pauses: list[int]) -> None:
    """The other one asks one thing at a time."""
    engine = flooded(num_places=num_places)
    for number, pause in enumerate(pauses):
        for step in range(pause):
            engine.add(f"flood {number} {step}", [7, number + 1], max_tokens=LONG, sampling=NO_END, tenant="flood")
            engine.step()
        engine.add(f"alone {number}", [40, number + 1], max_tokens=2, sampling=NO_END, tenant="other")

        assert steps_until(engine, f"alone {number}") <= 3
        engine.step()
        engine.step()
