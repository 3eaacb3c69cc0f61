from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.access.day_quota import DAY_S, NOTHING, Amount, DayQuota
from server.errors import StorageUnavailable

NOON = 20_000 * DAY_S + DAY_S // 2
LIMIT = Amount(1000, 5.0)


class Ledger:
    """Tells what was used on each day, and notes what it is asked."""

    def __init__(self, **used: Amount) -> None:
        self.used = used
        self.asked: list[tuple[str, int]] = []
        self.gate: asyncio.Event | None = None

    async def __call__(self, key_id: str, since_s: int) -> Amount:
        self.asked.append((key_id, since_s))
        if self.gate:
            await self.gate.wait()
        return self.used.get(f"day_{since_s // DAY_S}", NOTHING)


async def test_a_day_begins_with_what_the_ledger_says() -> None:
    ledger = Ledger(day_20000=Amount(700, 1.0))
    quota = DayQuota("k", ledger)

    await quota.open_day(NOON)

    assert quota.used == Amount(700, 1.0)
    assert ledger.asked == [("k", 20_000 * DAY_S)]
    assert quota.has_room(Amount(300), LIMIT)
    assert not quota.has_room(Amount(301), LIMIT)


async def test_many_at_once_ask_the_ledger_once_and_lose_nothing_that_ends_meanwhile() -> None:
    ledger = Ledger(day_20000=Amount(700))
    ledger.gate = asyncio.Event()
    quota = DayQuota("k", ledger)
    quota.reserve(Amount(50))
    opening = [asyncio.create_task(quota.open_day(NOON)) for _ in range(5)]
    await asyncio.sleep(0)

    quota.settle(Amount(50), Amount(40))
    ledger.gate.set()
    await asyncio.gather(*opening)

    assert (quota.used, quota.reserved) == (Amount(740), NOTHING)
    assert len(ledger.asked) == 1


async def test_the_next_day_begins_anew_and_a_clock_that_goes_back_opens_nothing() -> None:
    ledger = Ledger(day_20000=Amount(1000))
    quota = DayQuota("k", ledger)
    await quota.open_day(NOON)
    assert not quota.has_room(Amount(1), LIMIT)

    await quota.open_day(NOON + DAY_S)
    assert quota.has_room(Amount(1), LIMIT)

    await quota.open_day(NOON)
    assert not quota.has_room(Amount(1), LIMIT)


async def test_a_ledger_that_cannot_tell_is_asked_again() -> None:
    ledger = Ledger(day_20000=Amount(700))
    failures = [StorageUnavailable("later")]

    async def fail_once(key_id: str, since_s: int) -> Amount:
        if failures:
            raise failures.pop()
        return await ledger(key_id, since_s)

    quota = DayQuota("k", fail_once)
    with pytest.raises(StorageUnavailable):
        await quota.open_day(NOON)

    await quota.open_day(NOON)

    assert quota.used == Amount(700)


def test_a_request_that_may_use_more_than_all_of_it_has_to_be_alone() -> None:
    quota = DayQuota("k", Ledger())
    huge = Amount(5000, 9.0)
    assert quota.has_room(huge, LIMIT)

    quota.reserve(Amount(1))

    assert not quota.has_room(huge, LIMIT)


@given(st.lists(st.floats(0, 1), max_size=50))
def test_fractions_that_are_added_and_taken_away_leave_room_for_all_of_it(costs: list[float]) -> None:
    quota = DayQuota("k", Ledger())
    for cost in costs:
        quota.reserve(Amount(0, cost))
    for cost in reversed(costs):
        quota.settle(Amount(0, cost), NOTHING)

    assert quota.has_room(Amount(0, 5.0), LIMIT)
