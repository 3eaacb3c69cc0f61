"""A limit per minute that allows bursts: what is not used is kept, up to a minute's worth. Knows no clock."""

from __future__ import annotations

import math


class TokenBucket:
    """Fills at an even rate, and is emptied by what is taken.

    More may be taken than is there: then it is in debt, and nobody gets anything before that is paid off. Times are
    seconds of a clock that never goes back. One that fills infinitely fast is always full.
    """

    def __init__(self, per_minute: float, now: float) -> None:
        self.capacity = per_minute
        self._level = per_minute
        self._as_of = now

    def level(self, now: float) -> float:
        """What may be taken now; below 0: the debt."""
        self._fill(now)
        return self._level

    def take(self, amount: float, now: float) -> None:
        self._fill(now)
        self._level -= amount

    def give_back(self, amount: float, now: float) -> None:
        """Undo a `take`, as far as there is room."""
        self._fill(now)
        self._level = min(self.capacity, self._level + amount)

    def wait_s(self, amount: float, now: float) -> float:
        """Time until so much is there, at most all that it holds; 0: now. Infinity if it never holds anything."""
        if self.capacity == math.inf:
            return 0.0
        if self.capacity == 0:
            return math.inf if amount else 0.0
        return max(0.0, (min(amount, self.capacity) - self.level(now)) * 60 / self.capacity)

    def full_in_s(self, now: float) -> float:
        return self.wait_s(self.capacity, now)

    def resize(self, per_minute: float, now: float) -> None:
        """Another limit holds from now on; what has been used of the old one counts."""
        self._fill(now)
        self._level += per_minute - self.capacity
        self.capacity = per_minute

    def _fill(self, now: float) -> None:
        if self.capacity == math.inf:
            return
        self._level = min(self.capacity, self._level + (now - self._as_of) * self.capacity / 60)
        self._as_of = now
