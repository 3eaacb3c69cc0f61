"""What one key may use, what it has used lately, and what its requests in flight have reserved."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from server.access.day_quota import NOTHING, Amount, DayQuota
from server.access.token_bucket import TokenBucket
from server.caller import KeyLimits
from server.errors import LimitExceeded, QuotaExceeded
from server.types import Usage

FIRST_ANSWER_TOKENS = 256
"""Expected of an answer without `max_tokens` before the key's first one has ended."""

RETRY_TOMORROW_S = 120.0
"""What a key without any quota left is told: the most that clients honour; they are also told not to try again."""

_LEARNING = 0.2

CostOf = Callable[[str | None, Usage], float]
"""(model as the request named it, None if it did not; tokens) -> cost. Of a model that does not exist: 0."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a request may use.

    Attributes:
        model: As the request names it; None: it names none.
        max_answer_tokens: Of each answer; None: as many as there is room for.
    """

    model: str | None = None
    num_prompt_tokens: int = 0
    num_answers: int = 0
    max_answer_tokens: int | None = None


@dataclass(frozen=True)
class Standing:
    """How a key stands towards one of its limits per minute; `reset_s`: until it has all of it again."""

    limit: int
    remaining: int
    reset_s: float


class KeyAccount:
    """Limits per minute and per day, and how many requests run."""

    def __init__(self, limits: KeyLimits, day: DayQuota, cost_of: CostOf, clock: Callable[[], float]) -> None:
        now = clock()
        self.day = day
        self._limits = limits
        self._cost_of = cost_of
        self._clock = clock
        self._requests = TokenBucket(_or_inf(limits.requests_per_minute), now)
        self._tokens = TokenBucket(_or_inf(limits.tokens_per_minute), now)
        self._num_running = 0
        self._answer_tokens = float(FIRST_ANSWER_TOKENS)

    def set_limits(self, limits: KeyLimits) -> None:
        if limits != self._limits:
            now = self._clock()
            self._requests = _resized(self._requests, limits.requests_per_minute, now)
            self._tokens = _resized(self._tokens, limits.tokens_per_minute, now)
            self._limits = limits

    @property
    def is_idle(self) -> bool:
        """Whether forgetting it would change nothing."""
        now = self._clock()
        return not self._num_running and self._requests.full_in_s(now) == self._tokens.full_in_s(now) == 0

    def standings(self) -> dict[str, Standing]:
        now = self._clock()
        buckets = {"requests": self._requests, "tokens": self._tokens}
        return {
            name: Standing(int(each.capacity), max(0, int(each.level(now))), each.full_in_s(now))
            for name, each in buckets.items()
            if each.capacity < math.inf
        }

    # ---- a request comes

    def check(self) -> None:
        """Raise LimitExceeded if another request cannot be let in, whatever it asks."""
        limits, now = self._limits, self._clock()
        if limits.concurrent_requests is not None and self._num_running >= limits.concurrent_requests:
            raise LimitExceeded(
                f"this key runs {self._num_running} requests already, and may run {limits.concurrent_requests} at a "
                "time; wait for one to end",
                retry_after_s=1.0,
            )
        if wait_s := self._requests.wait_s(1, now):
            raise LimitExceeded(
                f"this key may send {limits.requests_per_minute} requests a minute, and has; {_when(wait_s)}",
                retry_after_s=wait_s,
            )
        if wait_s := self._tokens.wait_s(1, now):
            raise self._too_many_tokens(wait_s)
        if (self.day.used + self.day.reserved + _LEAST).exceeds(self._day_limit):
            raise self._no_quota_left()

    def begin(self, now: float) -> None:
        self._num_running += 1
        self._requests.take(1, now)

    def reserve(self, expected: Expected) -> tuple[float, Amount]:
        """Return what was reserved of this minute's tokens, and of today's quota. Raises LimitExceeded."""
        now, amount = self._clock(), self._amount_of(expected)
        num_tokens = min(amount.num_tokens, self._tokens.capacity)
        wait_s = self._tokens.wait_s(num_tokens, now)
        has_quota = self.day.has_room(amount, self._day_limit)
        if wait_s or not has_quota:
            self._requests.give_back(1, now)
            raise self._no_quota_left(amount) if not has_quota else self._too_many_tokens(wait_s, num_tokens)
        amount = amount.at_most(self._day_limit)
        self._tokens.take(num_tokens, now)
        self.day.reserve(amount)
        return num_tokens, amount

    def _amount_of(self, expected: Expected) -> Amount:
        each = self._answer_tokens if expected.max_answer_tokens is None else expected.max_answer_tokens
        usage = Usage(
            prompt_tokens=expected.num_prompt_tokens, completion_tokens=math.ceil(each) * expected.num_answers
        )
        return Amount(usage.prompt_tokens + usage.completion_tokens, self._cost_of(expected.model, usage))

    # ---- a request ends

    def settle(self, num_reserved: float, reserved: Amount, used: Amount) -> None:
        now = self._clock()
        self._num_running -= 1
        self._tokens.give_back(num_reserved, now)
        self._tokens.take(used.num_tokens, now)
        self.day.settle(reserved, used)

    def learn(self, num_answer_tokens: float) -> None:
        self._answer_tokens += _LEARNING * (num_answer_tokens - self._answer_tokens)

    # ---- refusals

    def _too_many_tokens(self, wait_s: float, num_tokens: float = 1) -> LimitExceeded:
        left = max(0, int(self._tokens.level(self._clock())))
        asked = f"this request may take {num_tokens:.0f}; " if num_tokens > 1 else ""
        return LimitExceeded(
            f"this key may use {self._limits.tokens_per_minute} tokens a minute, and has {left} left; {asked}"
            f"{_when(wait_s)}",
            retry_after_s=wait_s,
        )

    def _no_quota_left(self, wanted: Amount = NOTHING) -> QuotaExceeded:
        limits, spoken_for = self._limits, self.day.used + self.day.reserved
        parts = []
        if limits.tokens_per_day is not None:
            also = f", and this request may take {wanted.num_tokens:.0f}" if wanted.num_tokens else ""
            parts.append(f"{spoken_for.num_tokens:.0f} of {limits.tokens_per_day} tokens{also}")
        if limits.cost_per_day is not None:
            also = f", and this request may cost {wanted.cost:.4f}" if wanted.cost else ""
            parts.append(f"{spoken_for.cost:.4f} of {limits.cost_per_day:g} in cost{also}")
        return QuotaExceeded(
            f"this key's quota of the day is used up or spoken for ({'; '.join(parts)}); it is there again at 00:00 "
            "UTC, or ask for fewer tokens (max_tokens)",
            retry_after_s=RETRY_TOMORROW_S,
        )

    @property
    def _day_limit(self) -> Amount:
        return Amount(_or_inf(self._limits.tokens_per_day), _or_inf(self._limits.cost_per_day))


_LEAST = Amount(num_tokens=1)
"""What any request that is worth a claim may use."""


def _resized(bucket: TokenBucket, limit: int | None, now: float) -> TokenBucket:
    """The bucket under a new limit. What was used while there was none is not known, and so forgiven."""
    if limit is None or bucket.capacity == math.inf:
        return TokenBucket(_or_inf(limit), now)
    bucket.resize(limit, now)
    return bucket


def _or_inf(limit: float | None) -> float:
    return math.inf if limit is None else limit


def _when(wait_s: float) -> str:
    return f"try again in {max(1, math.ceil(wait_s))} s" if wait_s < math.inf else "trying again is of no use"
