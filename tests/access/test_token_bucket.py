from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.access.token_bucket import TokenBucket

steps = st.lists(
    st.tuples(st.integers(0, 300), st.sampled_from(["take", "give_back", "wait"]), st.integers(0, 200)), max_size=40
)


@dataclass
class NaiveBucket:
    """Fills a little a hundred times a second."""

    capacity: float
    level: float

    def advance(self, num_ticks: int) -> None:
        for _ in range(num_ticks):
            self.level = min(self.capacity, self.level + self.capacity / 6000)


@given(st.integers(1, 120), steps)
def test_it_is_as_full_as_its_twin(per_minute: int, steps: list[tuple[int, str, int]]) -> None:
    bucket, twin, now = TokenBucket(per_minute, 0.0), NaiveBucket(per_minute, per_minute), 0.0
    for num_ticks, what, amount in steps:
        now += num_ticks / 100
        twin.advance(num_ticks)
        if what == "take":
            bucket.take(amount, now)
            twin.level -= amount
        elif what == "give_back":
            bucket.give_back(amount, now)
            twin.level = min(twin.capacity, twin.level + amount)
        assert bucket.level(now) == pytest.approx(twin.level, abs=1e-6)


@given(st.integers(1, 1000), st.integers(0, 3000), st.integers(1, 2000))
def test_after_the_wait_it_is_there_and_not_before(per_minute: int, taken: int, wanted: int) -> None:
    bucket = TokenBucket(per_minute, 0.0)
    bucket.take(taken, 0.0)

    wait_s = bucket.wait_s(wanted, 0.0)

    wanted = min(wanted, per_minute)  # more than it holds is there when it is full
    assert bucket.level(wait_s) >= wanted - 1e-6
    if wait_s:
        assert TokenBucket.level(bucket, wait_s) == pytest.approx(wanted)


def test_a_debt_is_paid_off_before_anything_is_given() -> None:
    bucket = TokenBucket(60, 0.0)
    bucket.take(180, 0.0)

    assert bucket.wait_s(1, 0.0) == pytest.approx(121)
    assert bucket.full_in_s(100.0) == pytest.approx(80)


def test_another_limit_counts_what_was_used_of_the_old_one() -> None:
    bucket = TokenBucket(100, 0.0)
    bucket.take(30, 0.0)

    bucket.resize(40, 0.0)
    assert bucket.level(0.0) == 10

    bucket.resize(100, 0.0)
    assert bucket.level(0.0) == 70


def test_without_a_limit_nobody_waits() -> None:
    bucket = TokenBucket(math.inf, 0.0)
    bucket.take(10**12, 0.0)

    assert (bucket.wait_s(10**12, 0.0), bucket.full_in_s(0.0)) == (0, 0)
