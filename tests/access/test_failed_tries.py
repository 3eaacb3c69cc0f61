from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from server.access import failed_tries
from server.access.failed_tries import MAX_ADDRESSES, NUM_TRIES, SECONDS_PER_TRY, FailedTries

ADDRESS = "192.0.2.1"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_so_many_tries_and_then_one_at_a_time() -> None:
    clock = Clock()
    tries = FailedTries(clock=clock)

    first = [tries.note(ADDRESS) for _ in range(NUM_TRIES)]
    wait_s = tries.note(ADDRESS)
    clock.now += wait_s

    assert first == [0.0] * NUM_TRIES
    assert 0 < wait_s <= SECONDS_PER_TRY
    assert tries.note(ADDRESS) == 0.0
    assert tries.note(ADDRESS) > 0


def test_one_address_does_not_use_up_the_tries_of_another() -> None:
    tries = FailedTries(clock=Clock())
    for _ in range(NUM_TRIES + 1):
        tries.note(ADDRESS)

    assert tries.note("192.0.2.2") == 0.0


def test_a_network_of_ipv6_counts_as_one_address() -> None:
    tries = FailedTries(clock=Clock())
    for number in range(NUM_TRIES):
        tries.note(f"2001:db8::{number:x}")

    assert tries.note("2001:db8::ffff") > 0
    assert tries.note("2001:db8:0:1::1") == 0.0


def test_memory_is_bounded() -> None:
    tries = FailedTries(clock=Clock())

    for number in range(MAX_ADDRESSES + 10):
        tries.note(str(number))

    assert len(tries) == MAX_ADDRESSES


@given(st.lists(st.floats(min_value=0, max_value=120), max_size=60))
def test_as_many_as_a_bucket_lets_through(pauses: list[float]) -> None:
    """The same as a bucket of tries that fills up again."""
    clock = Clock()
    tries = FailedTries(clock=clock)
    left = float(NUM_TRIES)
    for pause in pauses:
        clock.now += pause
        left = min(NUM_TRIES, left + pause / failed_tries.SECONDS_PER_TRY)
        is_counted = tries.note(ADDRESS) == 0.0
        if abs(left - 1) > 1e-6:  # else rounding decides
            assert is_counted == (left >= 1)
        left -= is_counted
