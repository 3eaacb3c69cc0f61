"""The last lines that each worker has logged, for operators who ask. The log itself goes where the server's goes."""

from __future__ import annotations

import itertools
import time
from collections import deque
from dataclasses import dataclass

MAX_LINES = 1000
MAX_CHARS = 4096


@dataclass(frozen=True)
class RecentLine:
    """One line of a worker's log.

    Attributes:
        number: Counts the lines of all models, from 1.
        at: Unix time.
    """

    number: int
    at: float
    model_id: str
    text: str


class RecentLines:
    """Keeps so many lines of each model, cut to so many characters; a model that is gone keeps its own."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._by_model: dict[str, deque[RecentLine]] = {}

    def add(self, model_id: str, text: str) -> None:
        lines = self._by_model.setdefault(model_id, deque(maxlen=MAX_LINES))
        lines.append(RecentLine(next(self._numbers), time.time(), model_id, text[:MAX_CHARS]))

    def after(self, number: int, *, model_id: str | None = None, limit: int) -> list[RecentLine]:
        """The last lines behind that number, at most `limit`, oldest first; of all models for None."""
        found = self._by_model.values() if model_id is None else (self._by_model.get(model_id, ()),)
        newer = (line for lines in found for line in lines if line.number > number)
        return sorted(newer, key=lambda line: line.number)[-limit:]
