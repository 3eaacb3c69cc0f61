"""What a key has used today, and what requests in flight may still use: so that together they never exceed a quota.

A day is one of the calendar, in UTC. The ledger knows what was used on it, whatever happened to this process or to the
clock: it is asked once a day and key, and from then on counted along.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

DAY_S = 86_400

ROUNDING = 1e-9
"""Of a cost: what adding and taking away fractions may leave behind must not be what a request fails for."""


@dataclass(frozen=True)
class Amount:
    """Tokens, and what they cost in the unit of the prices in models.yaml."""

    num_tokens: float = 0
    cost: float = 0.0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.num_tokens + other.num_tokens, self.cost + other.cost)

    def __sub__(self, other: Amount) -> Amount:
        return Amount(self.num_tokens - other.num_tokens, self.cost - other.cost)

    def at_most(self, other: Amount) -> Amount:
        return Amount(min(self.num_tokens, other.num_tokens), min(self.cost, other.cost))

    def exceeds(self, other: Amount) -> bool:
        return self.num_tokens > other.num_tokens or self.cost > other.cost * (1 + ROUNDING)


NOTHING = Amount()

UsedSince = Callable[[str, int], Awaitable[Amount]]
"""(key id, Unix seconds) -> what the ledger says the key has used since then. May raise StorageError."""


class DayQuota:
    """One key's account of one day."""

    def __init__(self, key_id: str, used_since: UsedSince) -> None:
        self._key_id = key_id
        self._used_since = used_since
        self._day = -1
        self._loading = asyncio.Lock()
        self.used = NOTHING
        self.reserved = NOTHING

    def is_of_day(self, now_s: float) -> bool:
        """Whether `used` is of the day of this Unix time."""
        return self._day == now_s // DAY_S

    async def open_day(self, now_s: float) -> None:
        """Find out what has been used on the day of this Unix time. Raises StorageError if the ledger cannot tell."""
        async with self._loading:  # others wait for the same answer
            if not self.is_of_day(now_s):
                day = int(now_s // DAY_S)
                self.used = NOTHING  # what ends meanwhile is counted, if need be twice
                told = await self._used_since(self._key_id, day * DAY_S)
                self.used += told
                self._day = day

    def has_room(self, wanted: Amount, limit: Amount) -> bool:
        """Whether a request may use so much more. One that could use more than all of the limit has to be alone."""
        return not (self.used + self.reserved + wanted.at_most(limit)).exceeds(limit)

    def reserve(self, amount: Amount) -> None:
        self.reserved += amount

    def settle(self, reserved: Amount, used: Amount) -> None:
        """A request has ended that had reserved this and used that."""
        self.reserved -= reserved
        self.used += used
