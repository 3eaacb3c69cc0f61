"""Who yields the processor: bulk work of the encoders to chat, where both compute on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

LINGER_S = 1.0
"""Chat counts as busy for so long after its last answer: a client that asks on and on pauses between its requests."""


class CpuSplit:
    """Knows whether a chat model computes on the processor, and tells the encoders what part of the time is theirs.

    llama.cpp's threads wait for each other many times a token, so a neighbour that takes one core half of the time
    slows a chat to a quarter, whatever its nice value leaves over: time is shared out, not cores.

    Args:
        bulk_share: Part of the time in which encoders may compute bulk batches while a chat answers.
    """

    def __init__(self, bulk_share: float) -> None:
        self._bulk_share = bulk_share
        self._listeners: list[Callable[[float], None]] = []
        self._num_busy = 0
        self._lingering: asyncio.TimerHandle | None = None

    @property
    def share(self) -> float:
        """Part of the time that bulk batches may take now."""
        return self._bulk_share if self._num_busy or self._lingering else 1.0

    def listen(self, listener: Callable[[float], None]) -> None:
        """Call `listener` with the share whenever that changes."""
        self._listeners.append(listener)

    def chat_begins(self) -> None:
        """A chat model on the processor has begun to answer: it had no request before. Called on the event loop."""
        self._num_busy += 1
        if self._lingering:
            self._lingering.cancel()
            self._lingering = None
        elif self._num_busy == 1:
            self._tell()

    def chat_ends(self) -> None:
        """It has no request any more."""
        self._num_busy -= 1
        if self._num_busy == 0:
            self._lingering = asyncio.get_running_loop().call_later(LINGER_S, self._end_lingering)

    def _end_lingering(self) -> None:
        self._lingering = None
        self._tell()

    def _tell(self) -> None:
        for listener in self._listeners:
            listener(self.share)
