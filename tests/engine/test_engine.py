"""The engine against its naive twin: batching, chunking, preemption and aborts never change what a request says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.engine.detokenizer import Detokenizer
from server.engine.engine import Engine, Output
from server.engine.kv_cache import KVCache
from server.engine.sampler import Sampler
from server.engine.scheduler import Scheduler, SchedulerOptions
from server.engine.sequence import Sequence
from server.types import Delta, Failed, Finished, SamplingParams
from tests.fakes.backend import FakeBackend, generate_alone

GREEDY = SamplingParams(temperature=0)
PIECES = [f"<{token_id}>".encode() for token_id in range(50)]


def make_engine(backend: FakeBackend, **options: int) -> Engine:
    is_end = np.zeros(backend.vocab_size, np.bool_)
    is_end[0] = True
    defaults = {
        "max_step_tokens": backend.max_batch_tokens,
        "growth_reserve": 2,
        "max_running": backend.max_sequences,
        "min_tokens_to_wait_for": 3,
    }
    scheduler = Scheduler(KVCache(backend), SchedulerOptions(**{**defaults, **options}))
    return Engine(backend, scheduler, Sampler(is_end), is_end=lambda token_id: token_id == 0)


def make_sequence(
    request_id: str, prompt: list[int], *, max_tokens: int = 8, sampling: SamplingParams = GREEDY
) -> Sequence:
    detokenizer = Detokenizer(PIECES, sampling.stop)
    return Sequence(request_id, prompt, sampling, max_tokens=max_tokens, detokenizer=detokenizer)


def run_until_idle(engine: Engine, *, max_steps: int = 2000) -> list[Output]:
    outputs: list[Output] = []
    for _ in range(max_steps):
        outputs += engine.step()
        if engine.num_running + engine.num_waiting == 0:
            return outputs
    raise AssertionError(f"still busy after {max_steps} steps")


def text_of(outputs: list[Output], request_id: str) -> str:
    return "".join(event.text for owner, event in outputs if owner == request_id and isinstance(event, Delta))


def endings_of(outputs: list[Output], request_id: str) -> list[Finished | Failed]:
    return [event for owner, event in outputs if owner == request_id and isinstance(event, Finished | Failed)]


def expected_text(prompt: list[int], *, max_tokens: int) -> str:
    return "".join(
        f"<{token_id}>" for token_id in generate_alone(prompt, max_tokens=max_tokens, vocab_size=50) if token_id
    )


@pytest.mark.parametrize("prompt_length", [1, 2, 31, 32, 33, 50])
def test_one_request_says_what_the_model_says(prompt_length: int) -> None:
    engine = make_engine(FakeBackend())
    prompt = list(range(1, prompt_length + 1))[:49] + [7] * max(0, prompt_length - 49)

    engine.add(make_sequence("a", prompt))
    outputs = run_until_idle(engine)

    assert text_of(outputs, "a") == expected_text(prompt, max_tokens=8)
    engine.check_integrity()


requests = st.lists(
    st.tuples(
        st.one_of(  # prompt: unrelated, or one of few beginnings
            st.lists(st.integers(1, 49), min_size=1, max_size=24),
            st.lists(st.integers(1, 2), min_size=1, max_size=24),
        ),
        st.integers(1, 12),  # max_tokens
        st.integers(0, 12),  # the step at which it arrives
        st.one_of(st.none(), st.integers(0, 20)),  # steps after which the client leaves
    ),
    min_size=1,
    max_size=10,
)


@settings(max_examples=200, deadline=None)
@given(requests, st.integers(40, 90), st.integers(1, 6), st.integers(4, 32), st.booleans())
def test_company_never_changes_an_answer(
    arrivals: list[tuple[list[int], int, int, int | None]],
    num_cells: int,
    max_sequences: int,
    batch_tokens: int,
    has_streams: bool,
) -> None:
    """Few cells, ids and batch tokens force chunking, waiting and preemption in every combination."""
    backend = FakeBackend(
        num_cells=num_cells, max_sequences=max_sequences, max_batch_tokens=batch_tokens, has_streams=has_streams
    )
    engine = make_engine(backend, max_mixed_step_tokens=batch_tokens, max_prefill_chunk=max(1, batch_tokens // 2))
    outputs: list[Output] = []
    for step in range(40):
        for index, (prompt, max_tokens, arrives, leaves) in enumerate(arrivals):
            if arrives == step:
                engine.add(make_sequence(str(index), prompt, max_tokens=max_tokens))
            if leaves is not None and arrives + leaves == step:
                engine.abort(str(index))
        outputs += engine.step()
    outputs += run_until_idle(engine)

    for index, (prompt, max_tokens, _, leaves) in enumerate(arrivals):
        whole = expected_text(prompt, max_tokens=max_tokens)
        said, endings = text_of(outputs, str(index)), endings_of(outputs, str(index))
        if leaves is None:
            assert said == whole
            assert len(endings) == 1
        else:
            assert whole.startswith(said)
            assert len(endings) <= 1
        assert all(isinstance(ending, Finished) for ending in endings)
    engine.check_integrity()
    assert max(backend.batch_sizes, default=0) <= batch_tokens


def test_a_full_cache_preempts_and_recomputes() -> None:
    backend = FakeBackend(num_cells=40, max_sequences=4)
    engine = make_engine(backend)
    prompts = [[n] * 8 for n in (3, 4, 5, 6)]  # 32 cells of prompt, and up to 20 more each

    for n, prompt in enumerate(prompts):
        engine.add(make_sequence(str(n), prompt, max_tokens=20))
    outputs = run_until_idle(engine)

    assert [text_of(outputs, str(n)) for n in range(4)] == [expected_text(p, max_tokens=20) for p in prompts]
    assert sum(backend.batch_sizes) > sum(len(p) for p in prompts) + 80 - 4  # something was computed twice
    engine.check_integrity()


def test_streams_are_interleaved() -> None:
    engine = make_engine(FakeBackend(num_cells=200, max_sequences=5))
    for n in range(4):
        engine.add(make_sequence(str(n), [n + 10] * 3, max_tokens=6))

    outputs = run_until_idle(engine)

    order = [owner for owner, event in outputs if isinstance(event, Delta)]
    assert order[:8] == ["0", "1", "2", "3"] * 2


def test_a_long_prompt_does_not_stall_running_streams() -> None:
    engine = make_engine(FakeBackend(num_cells=400, max_batch_tokens=64), max_mixed_step_tokens=16, max_prefill_chunk=8)
    engine.add(make_sequence("quick", [5], max_tokens=30))
    engine.step()
    engine.add(make_sequence("long", [9] * 100, max_tokens=1))

    steps = [engine.step() for _ in range(10)]

    assert all(any(owner == "quick" for owner, _ in outputs) for outputs in steps)


def test_abort_gives_the_cells_back_within_one_step() -> None:
    engine = make_engine(FakeBackend())
    engine.add(make_sequence("a", [1, 2, 3], max_tokens=50))
    engine.step()
    assert engine.num_running == 1

    engine.abort("a")
    engine.step()

    assert engine.num_running == 0
    engine.check_integrity()


def test_a_shared_prefix_is_computed_once() -> None:
    """The second request arrives while its prefix is being computed: it waits for it instead of computing it again."""
    backend = FakeBackend(num_cells=400, max_sequences=8, max_batch_tokens=16)
    engine = make_engine(backend)
    prefix = [n % 40 + 1 for n in range(60)]
    prompts = [[*prefix, 41, n + 1] for n in range(4)]
    engine.add(make_sequence("0", prompts[0], max_tokens=4))
    outputs = engine.step()
    for n in range(1, 4):
        engine.add(make_sequence(str(n), prompts[n], max_tokens=4))

    outputs += run_until_idle(engine)

    assert [text_of(outputs, str(n)) for n in range(4)] == [expected_text(p, max_tokens=4) for p in prompts]
    usages = [ending.usage for n in range(4) for ending in endings_of(outputs, str(n)) if isinstance(ending, Finished)]
    assert [usage.cached_tokens for usage in usages] == [0, 61, 61, 61]
    assert sum(backend.batch_sizes) <= 62 + 3 * 1 + 4 * 3


def test_a_finished_conversation_is_continued_without_computing_it_again() -> None:
    backend = FakeBackend(num_cells=200)
    engine = make_engine(backend)
    engine.add(make_sequence("first", [3, 1, 4], max_tokens=6))
    run_until_idle(engine)
    answer = generate_alone([3, 1, 4], max_tokens=6, vocab_size=50)
    follow_up = [3, 1, 4, *answer, 7]
    computed = sum(backend.batch_sizes)

    engine.add(make_sequence("second", follow_up, max_tokens=2))
    outputs = run_until_idle(engine)

    assert text_of(outputs, "second") == expected_text(follow_up, max_tokens=2)
    assert sum(backend.batch_sizes) - computed <= 2 + 2  # the last answer token, the new one, and one generated


def test_idle_prefixes_make_room_before_anybody_is_preempted() -> None:
    backend = FakeBackend(num_cells=40, max_sequences=4)
    engine = make_engine(backend)
    engine.add(make_sequence("old", [8] * 30, max_tokens=1))
    run_until_idle(engine)

    engine.add(make_sequence("new", [9] * 30, max_tokens=5))
    outputs = run_until_idle(engine)

    assert text_of(outputs, "new") == expected_text([9] * 30, max_tokens=5)
    engine.check_integrity()


def test_a_failed_batch_fails_its_sequences_only() -> None:
    backend = FakeBackend(num_cells=200)
    engine = make_engine(backend)
    engine.add(make_sequence("old", [1, 2], max_tokens=5))
    backend.fail_next = True
    outputs = engine.step()
    engine.add(make_sequence("new", [3, 4], max_tokens=5))

    outputs += run_until_idle(engine)

    assert [type(ending) for ending in endings_of(outputs, "old")] == [Failed]
    assert text_of(outputs, "new") == expected_text([3, 4], max_tokens=5)
    engine.check_integrity()


def test_a_backend_with_fewer_cells_than_promised_fails_no_neighbour() -> None:
    backend = FakeBackend(num_cells=60)
    engine = make_engine(backend)
    backend.num_cells = 30  # the ledger believes in 60
    for n in range(2):
        engine.add(make_sequence(str(n), [n + 1] * 10, max_tokens=12))

    outputs = run_until_idle(engine)

    assert [text_of(outputs, str(n)) for n in range(2)] == [
        expected_text([n + 1] * 10, max_tokens=12) for n in range(2)
    ]


def test_logits_that_are_no_numbers_fail_one_sequence_only() -> None:
    backend = FakeBackend(num_cells=200)
    backend.poison = 49
    engine = make_engine(backend)
    engine.add(make_sequence("poisoned", [1, 49], max_tokens=5))
    engine.add(make_sequence("sound", [3, 1, 4], max_tokens=5))

    outputs = run_until_idle(engine)

    assert [type(ending) for ending in endings_of(outputs, "poisoned")] == [Failed]
    assert text_of(outputs, "sound") == expected_text([3, 1, 4], max_tokens=5)
    engine.check_integrity()


def test_fail_all_ends_every_request() -> None:
    engine = make_engine(FakeBackend())
    engine.add(make_sequence("a", [1], max_tokens=30))
    engine.add(make_sequence("b", [2], max_tokens=30))
    engine.step()

    outputs = engine.fail_all("a bug")

    assert {owner for owner, event in outputs if isinstance(event, Failed)} == {"a", "b"}
    engine.check_integrity()


def test_stop_string_ends_the_text_before_it() -> None:
    prompt = [3, 1, 4]
    tokens = generate_alone(prompt, max_tokens=8, vocab_size=50)
    engine = make_engine(FakeBackend())

    engine.add(make_sequence("a", prompt, sampling=SamplingParams(temperature=0, stop=(f"<{tokens[2]}>",))))
    outputs = run_until_idle(engine)

    assert text_of(outputs, "a") == f"<{tokens[0]}><{tokens[1]}>"
    assert endings_of(outputs, "a")[0].reason == "stop"  # type: ignore[union-attr]


def test_usage_counts_prompt_and_completion() -> None:
    engine = make_engine(FakeBackend())
    engine.add(make_sequence("a", [3, 1, 4], max_tokens=3))

    outputs = run_until_idle(engine)

    ending = endings_of(outputs, "a")[0]
    assert isinstance(ending, Finished)
    assert (ending.usage.prompt_tokens, ending.usage.completion_tokens) == (3, 3)
    assert ending.reason == "length"


def test_stop_wakes_a_waiting_engine() -> None:
    engine = make_engine(FakeBackend())
    engine.stop()

    engine.wait_for_work()

    assert engine.is_stopped
