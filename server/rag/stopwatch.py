"""How long the stages of something take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Runs from the moment it is made. Laps may overlap; one of the same name adds up."""

    def __init__(self) -> None:
        self._started_at = time.perf_counter()
        self._laps_s: dict[str, float] = {}

    @contextmanager
    def lap(self, name: str) -> Iterator[None]:
        started_at = time.perf_counter()
        try:
            yield
        finally:
            self._laps_s[name] = self._laps_s.get(name, 0.0) + time.perf_counter() - started_at

    def times_ms(self) -> dict[str, float]:
        """Return the laps, and `total` up to now."""
        all_s = {**self._laps_s, "total": time.perf_counter() - self._started_at}
        return {name: round(1000 * each_s, 3) for name, each_s in all_s.items()}
