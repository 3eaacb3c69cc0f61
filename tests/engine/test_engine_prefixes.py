"""What the engine has computed once, for prompts that begin alike."""

from __future__ import annotations

from server.engine.parked_prefixes import ParkedPrefixes
from server.types import Finished
from tests.fakes.backend import FakeBackend, generate_alone
from tests.fakes.engine import EngineUnderTest, endings_of, expected_text, text_of


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
