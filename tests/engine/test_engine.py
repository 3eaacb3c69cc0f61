"""The engine against its naive twin: batching, chunking, preemption and aborts never change what a request says."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.engine.output_processor import Output
from server.engine.parked_prefixes import ParkedPrefixes
from server.types import Delta, Finished, SamplingParams
from tests.fakes.backend import FakeBackend, generate_alone
from tests.fakes.engine import NO_END, EngineUnderTest, endings_of, expected_text, text_of


@pytest.mark.parametrize("prompt_length", [1, 2, 31, 32, 33, 50])
def test_one_request_says_what_the_model_says(prompt_length: int) -> None:
    engine = EngineUnderTest(FakeBackend())
    prompt = list(range(1, prompt_length + 1))[:49] + [7] * max(0, prompt_length - 49)

    engine.add("a", prompt)
    outputs = engine.run_until_idle()

    assert text_of(outputs, "a") == expected_text(prompt, max_tokens=8)


@dataclass(frozen=True)
class Arrival:
    """A request of the random test: when it comes, and after how many steps its client leaves, if it does."""

    prompt: list[int]
    max_tokens: int
    step: int
    leaves_after: int | None
    stop: int | None
    priority: int
    tenant: str


arrivals_of_all_kinds = st.builds(
    Arrival,
    prompt=st.one_of(  # unrelated, or one of few beginnings
        st.lists(st.integers(1, 49), min_size=1, max_size=24), st.lists(st.integers(1, 2), min_size=1, max_size=24)
    ),
    max_tokens=st.integers(1, 16),
    step=st.integers(0, 12),
    leaves_after=st.one_of(st.none(), st.integers(0, 20)),
    stop=st.one_of(st.none(), st.integers(1, 49)),
    priority=st.integers(-1, 1),
    tenant=st.sampled_from(["one", "other"]),
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(arrivals_of_all_kinds, min_size=1, max_size=10),
    st.integers(42, 90),
    st.integers(1, 6),
    st.integers(4, 32),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0.4, 1e9]),
    st.sampled_from([None, 20, 1000]),
)
def test_company_never_changes_an_answer(
    arrivals: list[Arrival],
    num_cells: int,
    max_sequences: int,
    batch_tokens: int,
    has_streams: bool,
    can_share: bool,
    is_text_late: bool,
    max_step_s: float,
    parked_bytes: int | None,
) -> None:
    """Few cells, ids and batch tokens force chunking, waiting, drafting, parking and preemption in all combinations."""
    backend = FakeBackend(
        num_cells=num_cells, max_sequences=max_sequences, max_batch_tokens=batch_tokens, has_streams=has_streams
    )
    backend.can_share = can_share
    parked = None if parked_bytes is None else ParkedPrefixes(parked_bytes, min_tokens=2)
    engine = EngineUnderTest(
        backend, is_text_late=is_text_late, parked=parked, max_step_s=max_step_s, min_prefill_tokens=3
    )
    outputs: list[Output] = []
    for step in range(40):
        for index, arrival in enumerate(arrivals):
            if arrival.step == step:
                stop = () if arrival.stop is None else (f"<{arrival.stop}>",)
                sampling = SamplingParams(temperature=0, stop=stop)
                urgency = {"priority": arrival.priority, "tenant": arrival.tenant}
                engine.add(str(index), arrival.prompt, max_tokens=arrival.max_tokens, sampling=sampling, **urgency)
            if arrival.leaves_after is not None and arrival.step + arrival.leaves_after == step:
                engine.engine.abort(str(index))
        outputs += engine.step()
    outputs += engine.run_until_idle()

    for index, arrival in enumerate(arrivals):
        whole = expected_text(arrival.prompt, max_tokens=arrival.max_tokens, stop=arrival.stop)
        said, endings = text_of(outputs, str(index)), endings_of(outputs, str(index))
        if arrival.leaves_after is None:
            assert said == whole
            assert len(endings) == 1
        else:
            assert whole.startswith(said)
            assert len(endings) <= 1
        assert all(isinstance(ending, Finished) for ending in endings)
    assert max(backend.batch_sizes, default=0) <= batch_tokens


def test_a_full_cache_preempts_and_recomputes() -> None:
    backend = FakeBackend(num_cells=100, max_sequences=4)
    engine = EngineUnderTest(backend, drafts=False)
    engine.engine._scheduler._answer_lengths._mean = 1  # as if all answers had been short lately
    prompts = [[n] * 8 for n in (3, 4, 5, 6)]

    for n, prompt in enumerate(prompts):
        engine.add(str(n), prompt, max_tokens=60)
    outputs = engine.run_until_idle()

    assert [text_of(outputs, str(n)) for n in range(4)] == [expected_text(p, max_tokens=60) for p in prompts]
    said = [len(generate_alone(p, max_tokens=60, vocab_size=50)) for p in prompts]
    assert sum(backend.batch_sizes) > sum(map(len, prompts)) + sum(said) - 4  # something was computed twice


def test_streams_are_interleaved() -> None:
    engine = EngineUnderTest(FakeBackend(num_cells=200, max_sequences=5))
    for n in range(4):
        engine.add(str(n), [n + 10] * 3, max_tokens=6)

    outputs = engine.run_until_idle()

    order = [owner for owner, event in outputs if isinstance(event, Delta)]
    assert order[:8] == ["0", "1", "2", "3"] * 2


def test_a_long_prompt_does_not_stall_running_streams() -> None:
    engine = EngineUnderTest(FakeBackend(num_cells=400, max_batch_tokens=64), max_step_s=0.4, min_prefill_tokens=8)
    engine.add("first", [8] * 60, max_tokens=1)  # tells how slow the machine is
    engine.run_until_idle()
    engine.add("quick", [5], max_tokens=30)
    engine.step()
    engine.add("long", [9] * 100, max_tokens=1)

    steps = [engine.step() for _ in range(10)]

    assert all(any(owner == "quick" for owner, _ in outputs) for outputs in steps)


def test_abort_gives_the_cells_back_within_one_step() -> None:
    engine = EngineUnderTest(FakeBackend())
    engine.add("a", [1, 2, 3], max_tokens=50)
    engine.step()
    assert engine.engine.num_running == 1

    engine.engine.abort("a")
    engine.step()

    assert engine.engine.num_running == 0


def test_an_ending_says_where_the_time_went() -> None:
    """The clock strikes at each look; arrival is its first stroke, and making the prompt took half of one."""
    engine = EngineUnderTest(FakeBackend())
    engine.add("a", [1, 2, 3], max_tokens=4, sampling=NO_END, arrived_at=-1.0, tokenize_s=0.5)

    [ending] = endings_of(engine.run_until_idle(), "a")

    assert isinstance(ending, Finished) and ending.timings is not None
    assert (ending.timings.tokenize_ms, ending.timings.queue_ms) == (500, 500)
    assert ending.timings.prefill_ms > 0
    assert ending.timings.decode_ms > ending.timings.prefill_ms


def test_who_is_computed_for_the_first_time_is_told() -> None:
    """So that a crash is known to be none of the others' doing."""
    engine = EngineUnderTest(FakeBackend(), max_running=1)
    engine.add("a", [1, 2])
    engine.add("b", [3, 4])

    engine.step()
    first = list(engine.begun)
    engine.run_until_idle()

    assert (first, engine.begun) == (["a"], ["a", "b"])


def test_stop_string_ends_the_text_before_it() -> None:
    prompt = [3, 1, 4]
    tokens = generate_alone(prompt, max_tokens=8, vocab_size=50)
    engine = EngineUnderTest(FakeBackend())

    engine.add("a", prompt, sampling=SamplingParams(temperature=0, stop=(f"<{tokens[2]}>",)))
    outputs = engine.run_until_idle()

    assert text_of(outputs, "a") == f"<{tokens[0]}><{tokens[1]}>"
    assert endings_of(outputs, "a")[0].reason == "stop"  # type: ignore[union-attr]


def test_usage_counts_prompt_and_completion() -> None:
    engine = EngineUnderTest(FakeBackend())
    engine.add("a", [3, 1, 4], max_tokens=3)

    outputs = engine.run_until_idle()

    ending = endings_of(outputs, "a")[0]
    assert isinstance(ending, Finished)
    assert (ending.usage.prompt_tokens, ending.usage.completion_tokens) == (3, 3)
    assert ending.reason == "length"


def test_what_work_costs_is_learned_from_the_steps() -> None:
    engine = EngineUnderTest(FakeBackend(num_cells=400, max_batch_tokens=64))
    assert (engine.engine.s_per_token, engine.engine.s_per_answer_token) == (0, 0)

    engine.add("a", [8] * 60, max_tokens=20, sampling=NO_END)
    engine.run_until_idle()

    assert engine.engine.s_per_token == pytest.approx(1 / 60, rel=0.5)  # the clock strikes once a step
    assert engine.engine.s_per_answer_token == pytest.approx(1 / 4, rel=0.5)  # of four at a time


def test_stop_wakes_a_waiting_engine() -> None:
    engine = EngineUnderTest(FakeBackend())
    engine.engine.stop()

    engine.engine.wait_for_work()

    assert engine.engine.is_stopped


def test_the_more_urgent_of_two_goes_first() -> None:
    engine = EngineUnderTest(FakeBackend(max_sequences=1))
    engine.add("later", [1, 2], max_tokens=2)
    engine.add("first", [3, 4], max_tokens=2, priority=-1)

    outputs = engine.run_until_idle()

    assert [owner for owner, event in outputs if isinstance(event, Finished)] == ["first", "later"]


def test_while_cells_are_short_only_who_fits_for_sure_is_admitted() -> None:
    backend = FakeBackend(num_cells=100, max_sequences=4)
    engine = EngineUnderTest(backend, drafts=False)
    engine.engine._scheduler._answer_lengths._mean = 1  # as if all answers had been short lately
    for n in range(2):
        engine.add(str(n), [n + 3] * 10, max_tokens=60, sampling=NO_END)
    engine.step()
    while engine.engine.num_waiting == 0:
        engine.step()  # until one of them is preempted

    engine.add("small", [40] * 3, max_tokens=2)
    outputs = engine.step() + engine.step() + engine.step()

    assert endings_of(outputs, "small")
    assert len(endings_of(outputs + engine.run_until_idle(), "0")) == 1


@given(st.lists(st.integers(1, 300), min_size=1, max_size=5), st.integers(70, 300))
def test_prompts_are_computed_in_slices_of_a_tile_at_least(lengths: list[int], num_batch_tokens: int) -> None:
    backend = FakeBackend(num_cells=4000, max_sequences=5, max_batch_tokens=num_batch_tokens)
    engine = EngineUnderTest(backend, drafts=False, first_prefill_tokens=num_batch_tokens)
    for number, length in enumerate(lengths):
        engine.add(str(number), [number + 1] * length, max_tokens=3, sampling=NO_END)

    def num_computed() -> dict[int, int]:
        return {cells[0].token_id - 1: len(cells) for cells in backend.cells.values() if cells}

    before: dict[int, int] = {}
    while engine.engine.num_running or engine.engine.num_waiting or not before:
        engine.step()
        after = num_computed()
        slices = {number: after[number] - before.get(number, 0) for number in after}
        prompts = {number for number in slices if slices[number] and before.get(number, 0) < lengths[number]}
        room = num_batch_tokens - sum(slices[number] for number in slices.keys() - prompts)
        for number in prompts:
            assert slices[number] >= min(64, room) or after[number] == lengths[number]
        before = after
