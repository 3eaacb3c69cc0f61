"""More and more clients at a time, and what they see at each level."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from server.loadgen.figures import Figures, Window, distinct_errors
from server.loadgen.loops import after, closed_loop
from server.loadgen.target import Target
from server.loadgen.workloads import Workload

LEAST_ANSWERS = 2
"""That each client gets on average, however long they take: one of a cold start, and one beside the others'."""


@dataclass(frozen=True)
class Level:
    """What so many clients saw.

    Attributes:
        seconds: Of the window that throughput is measured in.
        errors: The first few distinct reasons of requests that failed.
        client_cpu_share: CPU time of this process by wall time; near 1 the client was the bottleneck.
        is_complete: Whether it was measured to its end.
    """

    num_clients: int
    seconds: float
    num_answers: int
    num_errors: int
    figures: Figures
    errors: tuple[str, ...]
    client_cpu_share: float
    is_complete: bool


@dataclass(frozen=True)
class Progress:
    """Where the level that is being measured has got to."""

    num_clients: int
    num_answers: int
    num_errors: int


async def sweep(
    target: Target,
    workload: Workload[Any, Any],
    *,
    clients: Sequence[int],
    seconds: float,
    timeout_s: float,
    record: Callable[[Level], None],
    report: Callable[[Progress], None],
) -> None:
    """Measure level after level; stop behind one that had no answer.

    Args:
        clients: How many at a time, one number for each level.
        seconds: After these, and `LEAST_ANSWERS` for each client, no client of a level sends another request; what
            runs is waited for.
        record: Gets each level, also one that a cancellation left unfinished, if it had an answer or an error.
        report: Called after each answer.
    """
    for num_clients in clients:
        level = await _measure(
            target, workload, num_clients, seconds=seconds, timeout_s=timeout_s, record=record, report=report
        )
        if level.num_errors == level.num_answers:
            return


async def _measure(
    target: Target,
    workload: Workload[Any, Any],
    num_clients: int,
    *,
    seconds: float,
    timeout_s: float,
    record: Callable[[Level], None],
    report: Callable[[Progress], None],
) -> Level:
    seen = _Seen(num_clients, seconds, report)
    cpu_began_s = time.process_time()
    is_complete = False
    try:
        await closed_loop(
            target,
            workload.asks,
            workload.send,
            num_clients=num_clients,
            record=seen.keep,
            is_over=seen.is_enough,
            timeout_s=timeout_s,
        )
        is_complete = True
    finally:
        window = seen.window()
        level = Level(
            num_clients=num_clients,
            seconds=window.length_s,
            num_answers=len(seen.outcomes),
            num_errors=seen.num_errors,
            figures=workload.figures(seen.outcomes, window) if seen.outcomes else {},
            errors=distinct_errors(each.error for each in seen.outcomes),
            client_cpu_share=(time.process_time() - cpu_began_s) / (time.perf_counter() - window.begin_s),
            is_complete=is_complete,
        )
        if seen.outcomes:
            record(level)
    return level


class _Seen:
    """What has come of a level so far, and whether that is enough.

    A window that closes before the first answers would see nothing but prompts; so every client gets some first. Where
    as many requests have failed as there are clients, no more is waited for.
    """

    def __init__(self, num_clients: int, seconds: float, report: Callable[[Progress], None]) -> None:
        self.outcomes: list[Any] = []
        self.num_errors = 0
        self._num_clients = num_clients
        self._report = report
        self._began_s = time.perf_counter()
        self._time_is_up = after(seconds)
        self._least_end_s = self._began_s + seconds
        self._enough_s: float | None = None

    def keep(self, outcome: Any) -> None:
        self.outcomes.append(outcome)
        self.num_errors += bool(outcome.error)
        has_enough = len(self.outcomes) >= LEAST_ANSWERS * self._num_clients or self.num_errors >= self._num_clients
        if has_enough and self._enough_s is None:
            self._enough_s = time.perf_counter()
        self._report(Progress(self._num_clients, len(self.outcomes), self.num_errors))

    def is_enough(self) -> bool:
        return self._enough_s is not None and self._time_is_up()

    def window(self) -> Window:
        """From the beginning to when no client sends any more, or to now."""
        now_s = time.perf_counter()
        end_s = now_s if self._enough_s is None else min(now_s, max(self._least_end_s, self._enough_s))
        return Window(self._began_s, end_s, end_s - self._began_s)
