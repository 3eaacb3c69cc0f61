"""Holds keys to their limits: lets requests in or refuses them, and keeps account of what they use.

What a request will use is known only at its end. So it reserves what it may use when it comes, and settles when it
ends, however it ends: requests that run side by side cannot exceed a limit together that none of them exceeds alone.
Knows no HTTP, and neither prices nor the ledger; on the event loop only.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import islice

from server.access.day_quota import NOTHING, Amount, DayQuota, UsedSince
from server.access.key_account import CostOf, Expected, KeyAccount, Standing
from server.caller import Caller, KeyLimits
from server.types import Usage

MAX_ACCOUNTS = 10_000
"""Keys whose accounts are kept without need; those that were used last. A busy one, or one in debt, is kept anyway."""


async def nothing_since(_key_id: str, _since_s: int) -> Amount:
    """The ledger of a server that keeps none."""
    return NOTHING


def for_free(_model: str | None, _usage: Usage) -> float:
    """The prices of a server that has none."""
    return 0.0


class Claim:
    """One request's claim on what its key may use. Ends with `settle`."""

    def __init__(self, account: KeyAccount, now: float) -> None:
        self._account = account
        self._expected = Expected()
        self._reserved = NOTHING
        self._num_reserved = 0.0  # tokens of this minute
        account.begin(now)

    def reserve(self, expected: Expected) -> None:
        """Reserve what the request may use, as soon as that can be told.

        Raises:
            LimitExceeded: The key does not have so much left for now. Nothing was reserved, nor counts the request.
        """
        self._expected = expected
        self._num_reserved, self._reserved = self._account.reserve(expected)

    def settle(self, used: Amount | None, *, num_answer_tokens: int = 0) -> None:
        """The request has ended and used this; None: nobody knows, so it has used what it had reserved."""
        self._account.settle(self._num_reserved, self._reserved, self._reserved if used is None else used)
        if self._expected.num_answers and num_answer_tokens:
            self._account.learn(num_answer_tokens / self._expected.num_answers)


class KeyLimiter:
    """Accounts of all keys that have limits.

    Args:
        used_since: Asks the ledger.
        clock, wall_clock: Seconds; for all that is per minute, and for the calendar.
    """

    def __init__(
        self,
        *,
        used_since: UsedSince = nothing_since,
        cost_of: CostOf = for_free,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._used_since = used_since
        self._cost_of = cost_of
        self._clock = clock
        self._wall_clock = wall_clock
        self._accounts: dict[str, KeyAccount] = {}

    async def admit(self, caller: Caller) -> Claim | None:
        """Let a request in; None: its key has no limits, and there is nothing to settle.

        Raises:
            LimitExceeded: Not now, for the key's own limits.
            StorageError: The key has a quota, and the ledger cannot tell what is left of it.
        """
        has_quota = caller.limits.tokens_per_day is not None or caller.limits.cost_per_day is not None
        while (account := self._account(caller)) is not None:
            now_s = self._wall_clock()
            if has_quota and not account.day.is_of_day(now_s):
                await account.day.open_day(now_s)
                continue  # the account may be another one by now
            account.check()  # nothing is awaited between this and the claim
            return Claim(account, self._clock())
        return None

    def standings(self, caller: Caller) -> dict[str, Standing]:
        """How the caller's key stands, by the name of what is limited per minute: `requests`, `tokens`."""
        account = self._account(caller)
        return account.standings() if account else {}

    def _account(self, caller: Caller) -> KeyAccount | None:
        """The account of a key that has limits, used last from now on."""
        if caller.key_id is None or not is_limited(caller.limits):
            return None
        account = self._accounts.pop(caller.key_id, None)
        if account is None:
            account = KeyAccount(caller.limits, DayQuota(caller.key_id, self._used_since), self._cost_of, self._clock)
            self._forget_idle()
        account.set_limits(caller.limits)
        self._accounts[caller.key_id] = account
        return account

    def _forget_idle(self) -> None:
        if len(self._accounts) >= MAX_ACCOUNTS:
            idle = (key_id for key_id, account in self._accounts.items() if account.is_idle)
            for key_id in list(islice(idle, len(self._accounts) - MAX_ACCOUNTS + 1)):
                del self._accounts[key_id]


def is_limited(limits: KeyLimits) -> bool:
    """Whether there is anything that a key with these limits may not do."""
    return KeyLimits(weight=limits.weight) != limits
