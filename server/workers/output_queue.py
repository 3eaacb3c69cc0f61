"""What the engine's steps have said, on its way to the text thread: of quick steps several at a time.

What a step says costs much the same for one token or for ten, up to the client: two threads and two processes wake, a
message is packed, a chunk is written. All that competes with the model for the processor, so steps that take a few
milliseconds are not announced one by one.
"""

from __future__ import annotations

import threading
import time
from itertools import chain

from server.engine.engine import TokenOutput

PACE_S = 0.02
"""Between two announcements: fifty a second look the same to a reader as a hundred."""


class OutputQueue:
    """From one thread that puts to one that takes. What is urgent does not wait, and takes along what did."""

    def __init__(self, pace_s: float = PACE_S) -> None:
        self._pace_s = pace_s
        self._changed = threading.Condition()
        self._steps: list[list[TokenOutput]] = []
        self._is_urgent = False
        self._is_closed = False
        self._is_idle = False  # the taker waits for whatever comes
        self._due_at = 0.0

    def put(self, outputs: list[TokenOutput], *, is_urgent: bool) -> None:
        with self._changed:
            self._steps.append(outputs)
            self._is_urgent |= is_urgent
            if self._is_urgent or self._is_idle:
                self._changed.notify()

    def close(self) -> None:
        """Nothing more will come."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def take(self) -> list[TokenOutput] | None:
        """Wait until something is to be said, and `pace_s` after the last time if nothing is urgent.

        Returns:
            One output for each request, in the order of the first; None once the queue is closed and empty.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._is_urgent or self._is_closed, self._due_at - time.monotonic())
            self._is_idle = True
            self._changed.wait_for(lambda: self._steps or self._is_closed)
            self._is_idle = self._is_urgent = False
            steps, self._steps = self._steps, []
            self._due_at = time.monotonic() + self._pace_s
        return _merge(steps) if steps else None


def _merge(steps: list[list[TokenOutput]]) -> list[TokenOutput]:
    if len(steps) == 1:
        return steps[0]
    merged: list[TokenOutput] = []
    places: dict[str, int] = {}  # in `merged`, of requests that may have more to say
    for output in chain.from_iterable(steps):
        request_id, token_ids, ending = output
        if (place := places.get(request_id)) is None:
            places[request_id] = len(merged)
            merged.append(output)
        else:
            merged[place] = (request_id, merged[place][1] + token_ids, ending)
        if ending:
            del places[request_id]
    return merged
