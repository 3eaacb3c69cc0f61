"""How much of the time bulk work may take. Knows no threads and no clock."""

from __future__ import annotations


class BulkPace:
    """Spreads bulk batches out: after one that took `t` seconds, the next may begin `t / share - t` seconds later.

    Attributes:
        share: Part of the time that bulk batches may compute in; 1: no rest.
    """

    def __init__(self) -> None:
        self.share = 1.0
        self._rests_until = 0.0

    def set_share(self, share: float) -> None:
        """Change the share; a rest that was earned under the old one is over with a share of 1, and is kept else."""
        assert 0 < share <= 1, f"share is {share}"
        self.share = share
        if share == 1:
            self._rests_until = 0.0

    def record(self, seconds: float, *, now: float) -> None:
        """A bulk batch has ended just now, after `seconds`."""
        self._rests_until = now + seconds * (1 / self.share - 1)

    def rest_s(self, now: float) -> float:
        """Seconds until a bulk batch may begin; 0: now."""
        return max(0.0, self._rests_until - now)
