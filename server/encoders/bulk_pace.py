"""How much of the time bulk work may take, and how much of it is computed at a time. Knows no threads and no clock."""

from __future__ import annotations

MAX_WAIT_S = 0.02
"""Where somebody waits for answers, a bulk batch should end after so long: whoever comes meanwhile waits for it."""

LIVELY_S = 5.0
"""Who has asked waits for an answer, or will ask again, for so long. Else full batches are the most efficient."""

_NEWEST = 0.3
"""Weight of the last batch in the time that a token takes."""


class BulkPace:
    """Spreads bulk batches out: after one that took `t` seconds, the next may begin `t / share - t` seconds later.

    Attributes:
        share: Part of the time that bulk batches may compute in; 1: no rest.
    """

    def __init__(self) -> None:
        self.share = 1.0
        self._rests_until = 0.0
        self._lively_until = 0.0
        # Of bulk batches alone: the tokens of small interactive ones cost more, and would make bulk ones smaller yet.
        self._token_s: float | None = None

    def set_share(self, share: float) -> None:
        """Change the share; a rest that was earned under the old one is over with a share of 1, and is kept else."""
        assert 0 < share <= 1, f"share is {share}"
        self.share = share
        if share == 1:
            self._rests_until = 0.0

    def record(self, seconds: float, *, num_tokens: int, now: float) -> None:
        """A bulk batch of `num_tokens` has ended just now, after `seconds`."""
        self._rests_until = now + seconds * (1 / self.share - 1)
        token_s = seconds / num_tokens
        self._token_s = token_s if self._token_s is None else self._token_s + _NEWEST * (token_s - self._token_s)

    def record_interactive(self, now: float) -> None:
        """Somebody waits for an answer."""
        self._lively_until = now + LIVELY_S

    def rest_s(self, now: float) -> float:
        """Seconds until a bulk batch may begin; 0: now."""
        return max(0.0, self._rests_until - now)

    def max_tokens(self, now: float) -> int | None:
        """Most tokens of a bulk batch that begins now, though a single item may have more; None: no matter."""
        if now >= self._lively_until or self._token_s is None:
            return None
        return int(MAX_WAIT_S / self._token_s) if self._token_s > 0 else None
