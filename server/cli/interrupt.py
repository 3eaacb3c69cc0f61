"""Ctrl-C for commands that should finish the step they are at."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Self


class Interrupt:
    """While open, the first SIGINT or SIGTERM only sets `event`; a second one ends the command at once."""

    def __init__(self) -> None:
        self.event = threading.Event()

    @property
    def is_asked(self) -> bool:
        return self.event.is_set()

    def __enter__(self) -> Self:
        self._before = {each: signal.signal(each, self._handle) for each in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_exc: object) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def _handle(self, _signal: int, _frame: FrameType | None) -> None:
        if self.event.is_set():
            raise KeyboardInterrupt
        self.event.set()
