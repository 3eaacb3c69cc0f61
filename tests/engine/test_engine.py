"""The engine against its naive twin: batching, chunking, preemption and aborts never change what a request says."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.engine.detokenizer import Detokenizer
from server.engine.engine import Engine, TokenOutput
from server.engine.kv_cache import KVCache
from server.engine.output_processor import Output, OutputProcessor
from server.engine.parked_prefixes import ParkedPrefixes
from server.engine.sampler import Sampler
from server.engine.scheduler import Scheduler, SchedulerOptions
from server.engine.sequence import Sequence
from server.engine.step_cost import StepCost
from server.types import Delta, Failed, Finished, SamplingParams
from tests.fakes.backend import FakeBackend, generate_alone

GREEDY = SamplingParams(temperature=0)
NO_END = SamplingParams(temperature=0, ignore_eos=True)
PIECES = [f"<{token_id}>".encode() for token_id in range(50)]


class EngineUnderTest:
    """An engine with its text side, on a clock that strikes once a step."""

    def __init__(
        self,
        backend: FakeBackend,
        *,
        is_text_late: bool = False,
        parked: ParkedPrefixes | None = None,
        **options: float,
    ) -> None:
        is_end = np.zeros(backend.vocab_size, np.bool_)
        is_end[0] = True
        defaults = {
            "max_step_tokens": backend.max_batch_tokens,
            "max_step_s": 1e9,
            "max_running": min(backend.max_sequences, backend.max_batch_tokens),
            "min_tokens_to_wait_for": 3,
        }
        cost = StepCost()
        ticks = itertools.count()
        kv_cache = KVCache(backend, parked=parked)
        scheduler = Scheduler(kv_cache, SchedulerOptions(**{**defaults, **options}), cost)  # type: ignore[arg-type]
        self.engine = Engine(
            backend, scheduler, Sampler(is_end), cost, is_end=lambda token_id: token_id == 0, clock=lambda: next(ticks)
        )
        self._late: list[TokenOutput] | None = [] if is_text_late else None
        self._texts = OutputProcessor(self.engine.abort, is_end=lambda token_id: token_id == 0, names=PIECES)

    def add(
        self, request_id: str, prompt: list[int], *, max_tokens: int = 8, sampling: SamplingParams = GREEDY, **more: Any
    ) -> None:
        sequence = Sequence(request_id, prompt, sampling, max_tokens=max_tokens, **more)
        self._texts.open(sequence, Detokenizer(PIECES, sampling.stop))
        self.engine.add(sequence)

    def step(self) -> list[Output]:
        """A step; its text at once or, as in a worker at its latest, only after the next one."""
        outputs = self.engine.step()
        if self._late is not None:
            outputs, self._late = self._late, outputs
        return self._texts.process(outputs)

    def fail_all(self, reason: str) -> list[Output]:
        return self._texts.process(self.engine.fail_all(reason))

    def run_until_idle(self, *, max_steps: int = 2000) -> list[Output]:
        outputs: list[Output] = []
        for _ in range(max_steps):
            outputs += self.step()
            if self.engine.num_running + self.engine.num_waiting == 0:
                outputs += self.step() + self.step()  # the late text, and what it has to say to the engine
                self.engine.check_integrity()
                return outputs
        raise AssertionError(f"still busy after {max_steps} steps")


def text_of(outputs: list[Output], request_id: str) -> str:
    return "".join(event.text for owner, event in outputs if owner == request_id and isinstance(event, Delta))


def endings_of(outputs: list[Output], request_id: str) -> list[Finished | Failed]:
    return [event for owner, event in outputs if owner == request_id and isinstance(event, Finished | Failed)]


def expected_text(prompt: list[int], *, max_tokens: int, stop: int | None = None) -> str:
    tokens = generate_alone(prompt, max_tokens=max_tokens, vocab_size=50)
    if stop in tokens:
        tokens = tokens[: tokens.index(stop)]
    return "".join(f"<{token_id}>" for token_id in tokens if token_id)


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


def test_a_shared_prefix_is_computed_once() -> None:
    """The second request arrives while its prefix is being computed: it waits for it instead of computing it again."""
    backend = FakeBackend(num_cells=400, max_sequences=8, max_batch_tokens=16)
    engine = EngineUnderTest(backend, drafts=False)
    prefix = [n % 40 + 1 for n in range(60)]
    prompts = [[*prefix, 41, n + 1] for n in range(4)]
    engine.add("0", prompts[0], max_tokens=4)
    outputs = engine.step()
    for n in range(1, 4):
        engine.add(str(n), prompts[n], max_tokens=4)

    outputs += engine.run_until_idle()

    assert [text_of(outputs, str(n)) for n in range(4)] == [expected_text(p, max_tokens=4) for p in prompts]
    usages = [ending.usage for n in range(4) for ending in endings_of(outputs, str(n)) if isinstance(ending, Finished)]
    assert [usage.cached_tokens for usage in usages] == [0, 61, 61, 61]
    assert sum(backend.batch_sizes) <= 62 + 3 * 1 + 4 * 3


def test_siblings_compute_their_prompt_once() -> None:
    backend = FakeBackend(num_cells=400, max_sequences=8, max_batch_tokens=16)
    engine = EngineUnderTest(backend, drafts=False)
    prompt = [n % 40 + 1 for n in range(60)]
    for n in range(4):
        engine.add(str(n), prompt, max_tokens=4)

    outputs = engine.run_until_idle()

    assert {text_of(outputs, str(n)) for n in range(4)} == {expected_text(prompt, max_tokens=4)}
    usages = [ending.usage for n in range(4) for ending in endings_of(outputs, str(n)) if isinstance(ending, Finished)]
    assert [usage.cached_tokens for usage in usages] == [0, 59, 59, 59]
    assert sum(backend.batch_sizes) <= 60 + 3 * 1 + 4 * 3


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(1, 49), min_size=1, max_size=12),
    st.integers(2, 20),
    st.lists(st.integers(1, 49), max_size=20),
    st.integers(0, 20),
)
def test_a_prediction_changes_no_answer(prompt: list[int], max_tokens: int, wrong: list[int], num_right: int) -> None:
    """Right up to somewhere, wrong then, or the other way round."""
    answer = generate_alone(prompt, max_tokens=max_tokens, vocab_size=50)
    for prediction in ([*answer[:num_right], *wrong], [*wrong, *answer[num_right:]]):
        engine = EngineUnderTest(FakeBackend())
        make_drafting_cheap(engine)
        engine.add("a", prompt, max_tokens=max_tokens, prediction=prediction)

        outputs = engine.run_until_idle()

        assert text_of(outputs, "a") == expected_text(prompt, max_tokens=max_tokens)


def test_a_right_prediction_saves_steps_and_is_accounted_for() -> None:
    """Of a model that repeats nothing, so that nothing else could be drafted."""
    prompt = next(
        [n, 7]
        for n in range(1, 50)
        if len(set(answer := generate_alone([n, 7], max_tokens=20, vocab_size=50))) > 14 and len(answer) == 20
    )
    answer = generate_alone(prompt, max_tokens=20, vocab_size=50)

    usages, num_steps = [], []
    for prediction in ([], answer):
        engine = EngineUnderTest(FakeBackend())
        make_drafting_cheap(engine)
        engine.add("a", prompt, max_tokens=20, prediction=prediction)
        [ending] = endings_of(engine.run_until_idle(), "a")
        assert isinstance(ending, Finished)
        usages.append(ending.usage)
        num_steps.append(engine.engine.num_steps)

    assert (usages[0].accepted_prediction_tokens, usages[0].rejected_prediction_tokens) == (0, 0)
    assert usages[1].accepted_prediction_tokens > 8
    assert num_steps[1] < num_steps[0] - 5


def make_drafting_cheap(engine: EngineUnderTest) -> None:
    """As if many steps had been timed, in which more tokens took hardly longer."""
    for num_tokens in (1, 2, 3) * 20:
        seconds = 1 + 0.001 * num_tokens
        engine.engine._cost.observe(num_prompt_tokens=0, num_decode_tokens=num_tokens, seconds=seconds)


def test_log_probabilities_are_told_of_each_token_drafted_or_not() -> None:
    sampling = SamplingParams(temperature=0, num_logprobs=2)
    prompt = [5, 6, 7, 5, 6, 7, 5, 6]
    engine = EngineUnderTest(FakeBackend())
    make_drafting_cheap(engine)

    engine.add("a", prompt, max_tokens=12, sampling=sampling)
    outputs = engine.run_until_idle()

    told = [each for _, event in outputs if isinstance(event, Delta) for each in event.logprobs]
    pieces = [b"<%d>" % token_id for token_id in generate_alone(prompt, max_tokens=12, vocab_size=50) if token_id]
    assert [each.chosen.piece for each in told] == pieces
    assert all(each.top[0] == each.chosen and len(each.top) == 2 for each in told)
    assert told[0].chosen.logprob == pytest.approx(10 - np.log(np.exp(10) + 49), abs=1e-4)


def test_an_ending_says_where_the_time_went() -> None:
    """The clock strikes at each look; arrival is its first stroke, and making the prompt took half of one."""
    engine = EngineUnderTest(FakeBackend())
    engine.add("a", [1, 2, 3], max_tokens=4, sampling=NO_END, arrived_at=-1.0, tokenize_s=0.5)

    [ending] = endings_of(engine.run_until_idle(), "a")

    assert isinstance(ending, Finished) and ending.timings is not None
    assert (ending.timings.tokenize_ms, ending.timings.queue_ms) == (500, 500)
    assert ending.timings.prefill_ms > 0
    assert ending.timings.decode_ms > ending.timings.prefill_ms


def test_a_finished_conversation_is_continued_without_computing_it_again() -> None:
    backend = FakeBackend(num_cells=200)
    engine = EngineUnderTest(backend)
    engine.add("first", [3, 1, 4], max_tokens=6)
    engine.run_until_idle()
    answer = generate_alone([3, 1, 4], max_tokens=6, vocab_size=50)
    follow_up = [3, 1, 4, *answer, 7]
    computed = sum(backend.batch_sizes)

    engine.add("second", follow_up, max_tokens=2)
    outputs = engine.run_until_idle()

    assert text_of(outputs, "second") == expected_text(follow_up, max_tokens=2)
    assert sum(backend.batch_sizes) - computed <= 2 + 2  # the last answer token, the new one, and one generated


def test_what_had_to_make_room_comes_back_without_computing_it_again() -> None:
    backend = FakeBackend(num_cells=64, max_sequences=2)
    engine = EngineUnderTest(backend, parked=ParkedPrefixes(10_000, min_tokens=4))
    prompts = [[n] * 20 for n in (3, 4, 5, 6)]
    for n, prompt in enumerate(prompts):
        engine.add(str(n), prompt, max_tokens=1)
        engine.run_until_idle()

    num_batches = len(backend.batch_sizes)
    engine.add("again", prompts[0], max_tokens=2)
    outputs = engine.run_until_idle()

    assert text_of(outputs, "again") == expected_text(prompts[0], max_tokens=2)
    [ending] = endings_of(outputs, "again")
    assert isinstance(ending, Finished) and ending.usage.cached_tokens == 19
    assert backend.batch_sizes[num_batches] == 1


def test_idle_prefixes_make_room_before_anybody_is_preempted() -> None:
    backend = FakeBackend(num_cells=40, max_sequences=4)
    engine = EngineUnderTest(backend)
    engine.add("old", [8] * 30, max_tokens=1)
    engine.run_until_idle()

    engine.add("new", [9] * 30, max_tokens=5)
    outputs = engine.run_until_idle()

    assert text_of(outputs, "new") == expected_text([9] * 30, max_tokens=5)


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


def test_stop_wakes_a_waiting_engine() -> None:
    engine = EngineUnderTest(FakeBackend())
    engine.engine.stop()

    engine.engine.wait_for_work()

    assert engine.engine.is_stopped


def test_right_drafts_save_steps_and_wrong_ones_change_nothing() -> None:
    prompt = [5, 6, 7, 8, 5, 6]
    steps = {}
    for drafts in (False, True):
        backend = FakeBackend(num_cells=400)
        engine = EngineUnderTest(backend, drafts=drafts)
        engine.add("a", prompt, max_tokens=200, sampling=SamplingParams(temperature=0, ignore_eos=True))
        outputs = engine.run_until_idle()
        steps[drafts] = len(backend.batch_sizes), text_of(outputs, "a")

    assert steps[True][1] == steps[False][1]
    assert steps[True][0] < 0.7 * steps[False][0]


def test_a_drafted_sampled_text_is_the_same_as_without_drafts() -> None:
    sampling = SamplingParams(temperature=5.0, seed=7, ignore_eos=True)  # hot enough to leave the fake's one-hot logits
    texts = []
    for drafts in (False, True):
        engine = EngineUnderTest(FakeBackend(num_cells=400), drafts=drafts)
        engine.add("a", [5, 6, 7, 5, 6], max_tokens=100, sampling=sampling)
        texts.append(text_of(engine.run_until_idle(), "a"))

    assert texts[0] == texts[1]


def test_the_more_urgent_of_two_goes_first() -> None:
    engine = EngineUnderTest(FakeBackend(max_sequences=1))
    engine.add("later", [1, 2], max_tokens=2)
    engine.add("first", [3, 4], max_tokens=2, priority=-1)

    outputs = engine.run_until_idle()

    assert [owner for owner, event in outputs if isinstance(event, Finished)] == ["first", "later"]


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


def test_tenants_share_nothing() -> None:
    backend = FakeBackend(num_cells=400)
    engine = EngineUnderTest(backend)
    for tenant in ("one", "other", "one"):
        engine.add(tenant, [9] * 20, max_tokens=1, tenant=tenant)
        engine.run_until_idle()

    assert backend.batch_sizes == [20, 20, 1]


def test_a_pinned_prefix_is_found_by_everybody_later() -> None:
    backend = FakeBackend(num_cells=100)
    engine = EngineUnderTest(backend)
    engine.add("pinned", [9] * 30, max_tokens=1, pins_prefix=True)
    for n in range(10):
        engine.add(str(n), [n + 10] * 60, max_tokens=1)
    engine.run_until_idle()
    computed = sum(backend.batch_sizes)

    engine.add("late", [*[9] * 30, 1, 2], max_tokens=1)
    engine.run_until_idle()

    assert sum(backend.batch_sizes) - computed == 2


def test_a_prompt_that_shares_little_with_another_does_not_wait_for_it() -> None:
    backend = FakeBackend(num_cells=400, max_batch_tokens=16)
    engine = EngineUnderTest(backend)
    engine.add("long", [*[9] * 5, *[8] * 100], max_tokens=1)
    engine.step()
    engine.add("other", [*[9] * 5, *[7] * 60], max_tokens=1)
    engine.step()

    assert engine.engine.num_waiting == 0


def test_an_idle_engine_notices_what_was_not_given_back() -> None:
    engine = EngineUnderTest(FakeBackend())
    engine.add("a", [1, 2, 3])
    engine.run_until_idle()
    engine.engine._scheduler._kv_cache._free_ids.pop()

    with pytest.raises(AssertionError, match="ids leaked"):
        engine.engine.wait_for_work()


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


def test_a_bug_in_a_step_loses_no_ending() -> None:
    engine = EngineUnderTest(FakeBackend())
    engine.add("late", [1, 2, 3], deadline_at=0.0)
    engine.add("a", [1], max_tokens=30)
    engine.engine._scheduler.schedule = None  # type: ignore[assignment, method-assign]

    with pytest.raises(TypeError):
        engine.step()
    outputs = engine.fail_all("a bug")

    assert {owner for owner, event in outputs if isinstance(event, Failed)} == {"late", "a"}
