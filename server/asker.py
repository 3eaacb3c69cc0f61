"""For whom a request is served, and until when: known to all that works for it.

Between the door and a model lie searches, rewritings and second opinions that have no use for either. So that each of
them need not hand both through, they travel with the task: set once, in front of the endpoints, and read where a model
is asked something. Jobs that nobody waits for have the asker of nobody in particular.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from msgspec import structs

from server.types import DEFAULT_TENANT, Urgency


@dataclass(frozen=True, kw_only=True)
class Asker:
    """Who asks.

    Attributes:
        weight: Share of a busy model that the tenant gets, against the weights of the others who want it.
        deadline_at: `time.monotonic()` after which nobody waits for an answer any more.
    """

    tenant: str = DEFAULT_TENANT
    weight: float = 1.0
    deadline_at: float = math.inf

    @property
    def left_s(self) -> float:
        """Time until the deadline; 0 once it is over."""
        return max(0.0, self.deadline_at - time.monotonic())


NOBODY_IN_PARTICULAR = Asker()

_asker: ContextVar[Asker] = ContextVar("asker", default=NOBODY_IN_PARTICULAR)


def current_asker() -> Asker:
    """For whom the current task works."""
    return _asker.get()


@contextmanager
def asking(asker: Asker) -> Iterator[None]:
    """Let what runs inside, and the tasks that it starts, work for `asker`."""
    token = _asker.set(asker)
    try:
        yield
    finally:
        _asker.reset(token)


def on_behalf(urgency: Urgency) -> Urgency:
    """The urgency of a generation, with the weight of whoever asks and no more time than they have."""
    asker = current_asker()
    timeout_s = urgency.timeout_s
    if asker.deadline_at < math.inf:
        timeout_s = min(asker.left_s, math.inf if timeout_s is None else timeout_s)
    return structs.replace(urgency, timeout_s=timeout_s, weight=asker.weight)
