"""The radix tree against a naive model: a list of cells per holder."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from server.engine.prefix_cache import PrefixCache

TENANTS = st.sampled_from(["one", "other"])
TOKENS = st.lists(st.integers(0, 2), max_size=12)  # few different ones: many shared beginnings


class NaivePrefixes(RuleBasedStateMachine):
    """Opens, extends, idles and releases holders in any order; cells are objects, so that sharing can be counted."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = PrefixCache()
        self.cells: dict[int, list[tuple[int, object]]] = {}  # holder -> (token id, cell)
        self.running: set[int] = set()
        self.tenants: dict[int, str] = {}
        self.next_holder = 0

    @rule(prompt=TOKENS, tenant=TENANTS)
    def open(self, prompt: list[int], tenant: str) -> None:
        match = self.cache.match(prompt, tenant=tenant)
        own = [holder for holder in self.cells if self.tenants[holder] == tenant]
        assert match.num_tokens == max((common(prompt, self.tokens(holder)) for holder in own), default=0)
        shared = self.cells[min(match.holders)][: match.num_tokens] if match.holders else []
        assert all(self.cells[holder][: match.num_tokens] == shared for holder in match.holders)
        assert [token for token, _ in shared] == prompt[: match.num_tokens]
        running = {id(cell) for holder in self.running for _, cell in self.cells[holder]}
        assert match.num_idle_cells == sum(id(cell) not in running for _, cell in shared)
        holder, self.next_holder = self.next_holder, self.next_holder + 1
        self.cache.open(holder, match)
        self.cells[holder] = list(shared)
        self.tenants[holder] = tenant
        self.running.add(holder)

    @precondition(lambda self: self.cells.keys() - self.running)
    @rule(prompt=TOKENS, tenant=TENANTS)
    def reopen(self, prompt: list[int], tenant: str) -> None:
        match = self.cache.match(prompt, tenant=tenant)
        for holder in sorted(match.holders - self.running)[:1]:
            self.cache.reopen(holder, match)
            self.cells[holder] = self.cells[holder][: match.num_tokens]
            self.running.add(holder)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), more=TOKENS.filter(bool))
    def extend(self, data: st.DataObject, more: list[int]) -> None:
        holder = data.draw(st.sampled_from(sorted(self.running)))
        self.cache.extend(holder, more)
        self.cells[holder] += [(token, object()) for token in more]

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def make_idle(self, data: st.DataObject) -> None:
        holder = data.draw(st.sampled_from(sorted(self.running)))
        self.cache.make_idle(holder)
        self.running.remove(holder)

    @precondition(lambda self: self.cells.keys() - self.running)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        holder = data.draw(st.sampled_from(sorted(self.cells.keys() - self.running)))
        others = {id(cell) for other in self.cells if other != holder for _, cell in self.cells[other]}
        assert self.cache.adds_nothing(holder) == all(id(cell) in others for _, cell in self.cells[holder])
        self.cache.release(holder)
        del self.cells[holder]

    @invariant()
    def counts_are_true(self) -> None:
        self.cache.check_integrity(running=self.running)
        assert self.cache.num_cells == self.num_distinct(self.cells)
        assert self.cache.num_running_cells == self.num_distinct(self.running)

    def tokens(self, holder: int) -> list[int]:
        return [token for token, _ in self.cells[holder]]

    def num_distinct(self, holders: object) -> int:
        return len({id(cell) for holder in holders for _, cell in self.cells[holder]})  # type: ignore[attr-defined]


TestPrefixCache = NaivePrefixes.TestCase
TestPrefixCache.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def common(one: list[int], two: list[int]) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))


def test_part_of_a_run_counts() -> None:
    cache = PrefixCache()
    cache.open(0, cache.match([], tenant="one"))
    cache.extend(0, [1, 2, 3, 4])

    assert cache.match([1, 2, 9], tenant="one").num_tokens == 2
    assert cache.match([1, 2, 9], tenant="other").num_tokens == 0


@pytest.mark.parametrize("prompt", [[], [7], [7, 1, 2]])
def test_what_is_not_cached_matches_nothing(prompt: list[int]) -> None:
    cache = PrefixCache()
    cache.open(0, cache.match([], tenant="one"))
    cache.extend(0, [1, 2, 3])

    match = cache.match(prompt, tenant="one")

    assert (match.num_tokens, list(match.holders)) == (0, [])
