"""Which ids and cells a sequence gets, and when idle prefixes go: the ledger over a backend that keeps real cells."""

from __future__ import annotations

import pytest

from server.engine.kv_cache import KVCache
from server.engine.parked_prefixes import ParkedPrefixes
from tests.fakes.backend import Cell, FakeBackend


def run(cache: KVCache, tokens: list[int]) -> int:
    """Open a sequence, compute what is not cached, and close it; return its id."""
    seq_id = begin(cache, tokens)
    cache.close(seq_id, keep=True)
    cache.drop_costly()
    return seq_id


def begin(cache: KVCache, tokens: list[int]) -> int:
    match = cache.match(tokens, tenant="one")
    seq_id, _ = cache.open(match)
    cache.make_room(len(tokens) - match.num_tokens)
    cells = cache._backend.cells.setdefault(seq_id, [])  # type: ignore[attr-defined]
    cells += [Cell(token) for token in tokens[match.num_tokens :]]
    cache.grow(seq_id, tokens[match.num_tokens :])
    return seq_id


def test_a_long_dead_prefix_goes_though_others_share_its_beginning() -> None:
    """Rent is paid by each idle prefix for itself: a shared template must not keep a dead conversation."""
    cache = KVCache(FakeBackend(num_cells=4000, max_sequences=40), max_idle_tokens=300)
    run(cache, [1, 2, 3, *[7] * 1000])

    for n in range(20):
        run(cache, [1, 2, 3, *[n + 10] * 30])

    assert cache.match([1, 2, 3, 7, 7, 7], tenant="one").num_tokens == 3
    cache.check_integrity()


def test_a_conversation_goes_on_under_its_own_id() -> None:
    cache = KVCache(FakeBackend(num_cells=400, max_sequences=4))
    first = run(cache, [1, 2, 3, 4])

    second = run(cache, [1, 2, 3, 4, 5, 6])

    assert second == first
    assert cache.num_idle_cells == 6


@pytest.mark.parametrize("has_streams", [True, False])
def test_the_same_prompt_again_is_found(has_streams: bool) -> None:
    cache = KVCache(FakeBackend(num_cells=400, max_sequences=4, has_streams=has_streams))
    run(cache, [1, 2, 3, 4])

    assert cache.match([1, 2, 3, 4], tenant="one").num_tokens == 3


def test_running_streams_stay_side_by_side() -> None:
    """A hole between the ids of running streams costs llama.cpp another forward pass."""
    cache = KVCache(FakeBackend(num_cells=400, max_sequences=16, has_streams=True))
    for n in range(16):
        run(cache, [n + 1] * 20)  # all ids hold an idle prefix now

    running = sorted(begin(cache, [n + 30] * 20) for n in range(4))

    assert running[-1] - running[0] == 3


def test_a_few_common_tokens_are_not_worth_copying_a_stream() -> None:
    cache = KVCache(FakeBackend(num_cells=8192, max_sequences=4, has_streams=True))
    run(cache, [1, 2, 3, *[7] * 200])

    assert cache.match([1, 2, 3, 8, 8], tenant="one").num_tokens == 0
    assert cache.match([1, 2, 3, *[7] * 200, 9], tenant="one").num_tokens == 203


def test_cells_that_cannot_be_trusted_are_not_shared() -> None:
    cache = KVCache(FakeBackend(num_cells=400, max_sequences=4))
    seq_id = begin(cache, [1, 2, 3, 4])

    cache.close(seq_id, keep=False)

    assert cache.match([1, 2, 3, 4], tenant="one").num_tokens == 0


def test_an_idle_stream_that_holds_the_prefix_is_cut_and_not_copied() -> None:
    """All streams are taken by finished requests with one beginning: the next such request needs no copy."""
    backend = FakeBackend(num_cells=400, max_sequences=2, has_streams=True)
    cache = KVCache(backend)
    for n in range(2):
        run(cache, [*range(40), n + 50])

    backend.copy = None  # type: ignore[assignment, method-assign]
    seq_id = begin(cache, [*range(40), 60, 61])

    assert len(backend.cells[seq_id]) == 42


def test_idle_prefixes_that_nobody_wants_may_cost_less_and_less() -> None:
    cache = KVCache(FakeBackend(num_cells=40_000, max_sequences=400), max_idle_tokens=1000)

    for n in range(12):
        run(cache, [n] * 100)
    early = cache.num_idle_cells
    for n in range(100):
        run(cache, [n + 12] * 100)

    assert cache.num_idle_cells < early / 2
    cache.check_integrity()


def test_a_pinned_prefix_outlives_everything() -> None:
    cache = KVCache(FakeBackend(num_cells=400, max_sequences=4), max_idle_tokens=10)
    cache.pin(begin(cache, [1, 2, 3, 4]))

    for n in range(20):
        run(cache, [n + 10] * 300)
    cache.evict_all()

    assert cache.match([1, 2, 3, 4, 5], tenant="one").num_tokens == 4
    assert cache.num_available_cells == 396
    cache.check_integrity()


# ---- parking


def parking(backend: FakeBackend, *, max_bytes: int = 1000) -> tuple[KVCache, ParkedPrefixes]:
    parked = ParkedPrefixes(max_bytes, min_tokens=4)
    return KVCache(backend, max_idle_tokens=10_000, parked=parked), parked


@pytest.mark.parametrize("has_streams", [True, False])
def test_a_prefix_whose_id_is_needed_is_parked_and_comes_back(has_streams: bool) -> None:
    backend = FakeBackend(num_cells=400, max_sequences=1, has_streams=has_streams)
    cache, _ = parking(backend)
    run(cache, [1] * 20)
    run(cache, [2] * 20)

    prefix = cache.match([1] * 10 + [3] * 10, tenant="one")
    seq_id, num_tokens = cache.open(prefix)

    assert (prefix.num_tokens, num_tokens, len(backend.cells[seq_id])) == (10, 10, 10)
    cache.close(seq_id, keep=True)
    cache.check_integrity()


def test_the_rest_of_a_prefix_that_is_taken_over_is_parked() -> None:
    backend = FakeBackend(num_cells=400, max_sequences=1)
    cache, _ = parking(backend)
    run(cache, [*[1] * 20, *[2] * 20])
    run(cache, [*[1] * 20, *[3] * 20])

    assert cache.match([*[1] * 20, *[2] * 20], tenant="one").num_tokens == 39


def test_a_conversation_that_goes_on_is_not_copied() -> None:
    cache, parked = parking(FakeBackend(num_cells=400, max_sequences=1))
    run(cache, [1] * 20)
    run(cache, [1] * 40)

    assert parked.num_bytes == 0


def test_what_is_in_the_cache_is_not_fetched_from_elsewhere() -> None:
    backend = FakeBackend(num_cells=400, max_sequences=2)
    cache, _ = parking(backend)
    for prompt in ([1] * 20, [2] * 20, [3] * 20, [1] * 20):
        run(cache, prompt)
    backend.restore = None  # type: ignore[assignment, method-assign]

    assert cache.open(cache.match([1] * 20, tenant="one"))[1] == 19


def test_what_has_no_room_to_come_back_is_computed_again() -> None:
    backend = FakeBackend(num_cells=400, max_sequences=1)
    cache, _ = parking(backend)
    run(cache, [1] * 20)
    run(cache, [2] * 20)
    backend.restore = lambda _seq_id, _states: False  # type: ignore[method-assign]

    seq_id, num_tokens = cache.open(cache.match([1] * 20, tenant="one"))

    assert num_tokens == 0
    cache.close(seq_id, keep=True)
    cache.check_integrity()


def test_a_copy_that_is_longer_than_the_room_is_not_offered() -> None:
    backend = FakeBackend(num_cells=40, max_sequences=2)
    cache, _ = parking(backend)
    run(cache, [1] * 30)
    begin(cache, [2] * 20)

    assert cache.match([1] * 8, tenant="one").num_tokens == 0


def test_cells_that_cannot_be_trusted_are_not_parked() -> None:
    cache, parked = parking(FakeBackend(num_cells=400, max_sequences=4))
    run(cache, [1] * 20)

    cache.evict_all()

    assert parked.num_bytes == 0


def test_tenants_find_their_own_copies_only() -> None:
    cache, _ = parking(FakeBackend(num_cells=400, max_sequences=1))
    run(cache, [1] * 20)
    run(cache, [2] * 20)

    assert cache.match([1] * 20, tenant="other").num_tokens == 0
    assert cache.match([1] * 20, tenant="one").num_tokens == 19


def test_without_memory_for_a_copy_nothing_is_parked_and_nobody_fails(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_seq_id: int) -> list[int]:
        raise MemoryError

    backend = FakeBackend(num_cells=400, max_sequences=1)
    cache, parked = parking(backend)
    run(cache, [1] * 20)
    backend.save = fail  # type: ignore[method-assign]
    run(cache, [2] * 20)

    assert parked.num_bytes == 0
    assert "no memory to park" in caplog.text
    cache.check_integrity()


def test_what_would_be_larger_than_all_may_be_is_not_even_copied() -> None:
    backend = FakeBackend(num_cells=400, max_sequences=1)
    cache, parked = parking(backend, max_bytes=30)
    run(cache, [1] * 20)
    run(cache, [2] * 50)
    backend.save = None  # type: ignore[assignment, method-assign]
    run(cache, [3] * 20)

    assert parked.num_bytes == 20


def test_cells_that_somebody_runs_on_are_shared_rather_than_doubled() -> None:
    """A long prompt that is pinned, or running: what is parked of a turn behind it is no reason to have it twice."""
    backend = FakeBackend(num_cells=400, max_sequences=2)
    cache, _ = parking(backend)
    cache.pin(begin(cache, [1] * 50))
    run(cache, [*[1] * 50, *[2] * 20])
    run(cache, [3] * 20)

    assert cache.match([*[1] * 50, *[2] * 20], tenant="one").num_tokens == 50


def test_what_is_too_large_to_be_parked_may_stay_as_without_parking() -> None:
    parked = ParkedPrefixes(30, min_tokens=4)
    cache = KVCache(FakeBackend(num_cells=4000, max_sequences=40), parked=parked)
    run(cache, [1] * 20)  # tells what a copy of it takes, when it has gone
    run(cache, [2] * 100)
    run(cache, [3] * 100)
    assert parked.num_bytes == 20

    run(cache, [4] * 100)

    assert cache.match([2] * 50, tenant="one").num_tokens == 49
