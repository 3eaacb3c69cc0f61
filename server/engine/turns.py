"""The turns of tenants: who of those that wait is looked at next."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

from server.engine.sequence import Sequence


class Turns(Iterator[Sequence]):
    """Yields sequences one after the other: by priority, then of the tenant that stands lowest, its first as given.

    What a tenant's standing is, is asked anew each time, so that starting one sequence puts its tenant's others back.

    Args:
        in_order: All that wait, the most urgent first, those of lower priority behind all others.
        standing: Of a tenant; asked only where there are several.
    """

    def __init__(self, in_order: Iterable[Sequence], standing: Callable[[str], float]) -> None:
        self._standing = standing
        self._queues: dict[str, deque[Sequence]] = {}
        for sequence in in_order:
            self._queues.setdefault(sequence.tenant, deque()).append(sequence)

    def __next__(self) -> Sequence:
        if not self._queues:
            raise StopIteration
        tenant = min(self._queues, key=self._rank) if len(self._queues) > 1 else next(iter(self._queues))
        sequence = self._queues[tenant].popleft()
        if not self._queues[tenant]:
            del self._queues[tenant]
        return sequence

    def end(self, tenant: str) -> None:
        """Yield no more of a tenant's."""
        self._queues.pop(tenant, None)

    def _rank(self, tenant: str) -> tuple[int, float]:
        return self._queues[tenant][0].priority, self._standing(tenant)
