"""Parked prefixes against a naive list of them."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from server.engine.parked_prefixes import MIN_NEW_SHARE, Parked, ParkedPrefixes

MIN_TOKENS = 3
MAX_BYTES = 40
TENANTS = st.sampled_from(["one", "other"])
TOKENS = st.lists(st.integers(0, 2), max_size=14)


class NaiveParking(RuleBasedStateMachine):
    """Copies are their own tokens, a byte each; the list is in the order of their last use."""

    def __init__(self) -> None:
        super().__init__()
        self.parked = ParkedPrefixes(MAX_BYTES, min_tokens=MIN_TOKENS)
        self.copies: list[tuple[str, Parked]] = []

    @rule(tokens=TOKENS, tenant=TENANTS)
    def park(self, tokens: list[int], tenant: str) -> None:
        own = [copy for owner, copy in self.copies if owner == tenant]
        most = max((common(tokens, copy.token_ids) for copy in own), default=0)
        num_new = len(tokens) - most
        is_continued = any(
            copy.token_ids == tokens[: len(copy.token_ids)] for copy in own if len(copy.token_ids) == most
        )
        is_much = num_new >= len(tokens) * MIN_NEW_SHARE or (most > 0 and is_continued)
        wants = self.parked.wants(tokens, tenant=tenant)
        assert wants == (num_new >= MIN_TOKENS and is_much)
        if wants:
            copy = Parked(tokens, tokens)
            self.parked.put(copy, tenant=tenant)
            self.copies = [
                (owner, each)
                for owner, each in self.copies
                if owner != tenant or len(each.token_ids) < most or each.token_ids != tokens[:most]
            ]
            self.copies.append((tenant, copy))
            while sum(len(each.token_ids) for _, each in self.copies) > MAX_BYTES:
                self.copies.pop(0)
        else:
            self.touch_one_of(tokens[:most], tenant)

    @rule(tokens=TOKENS, tenant=TENANTS)
    def find(self, tokens: list[int], tenant: str) -> None:
        own = [copy for owner, copy in self.copies if owner == tenant]
        most = max((common(tokens, copy.token_ids) for copy in own), default=0)
        found = self.parked.find(tokens, tenant=tenant)
        assert (found is not None) == (most >= MIN_TOKENS)
        if found is not None:
            num_tokens, copy = found
            assert num_tokens == most
            assert copy.token_ids[:most] == tokens[:most]
            self.parked.use(copy)
            self.touch(copy)

    @invariant()
    def the_same_copies_are_kept(self) -> None:
        self.parked.check_integrity()
        kept = list(self.parked._parked.values())
        assert [id(copy) for copy in kept] == [id(copy) for _, copy in self.copies]

    def touch_one_of(self, tokens: list[int], tenant: str) -> None:
        """Which of several is up to the index: take over its choice."""
        last = next(reversed(self.parked._parked.values()), None)
        if tokens and last is not None:
            assert last.token_ids[: len(tokens)] == tokens
            assert any(owner == tenant and copy is last for owner, copy in self.copies)
            self.touch(last)

    def touch(self, copy: Parked) -> None:
        self.copies.sort(key=lambda each: each[1] is copy)


def common(tokens: list[int], other: list[int]) -> int:
    return next(
        (at for at, (a, b) in enumerate(zip(tokens, other, strict=False)) if a != b), min(len(tokens), len(other))
    )


TestNaiveParking = NaiveParking.TestCase


def test_what_is_larger_than_all_may_be_is_not_kept() -> None:
    parked = ParkedPrefixes(10, min_tokens=1)
    parked.put(Parked([1] * 5, [1] * 5), tenant="one")

    parked.put(Parked([2] * 11, [2] * 11), tenant="one")

    assert parked.num_bytes == 5
    assert parked.find([1] * 5, tenant="one") is not None


def test_questions_on_one_document_are_one_copy() -> None:
    parked = ParkedPrefixes(10_000)
    parked.put(Parked([1] * 2000, bytes(2000)), tenant="one")

    assert not parked.wants([*[1] * 1900, *[2] * 100], tenant="one")
    assert parked.wants([*[1] * 1500, *[2] * 500], tenant="one")


def test_a_conversation_that_goes_on_is_one_copy() -> None:
    parked = ParkedPrefixes(10_000)
    parked.put(Parked([1] * 2000, bytes(2000)), tenant="one")

    assert parked.wants([1] * 2100, tenant="one")
    parked.put(Parked([1] * 2100, bytes(2100)), tenant="one")

    assert parked.num_bytes == 2100
