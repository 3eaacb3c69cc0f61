"""Trying again what fails for reasons that pass: the model is down, the disk is full. A job waits, it does not fail."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TypeVar

from server.errors import ModelUnavailable, Overloaded, StorageError, StorageFull, WorkerCrashed

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class RetryPolicy:
    """When to try again, and when to give up.

    Attributes:
        first_wait_s, max_wait_s: Wait before another attempt; doubles.
        max_crashes: Work under which the model's worker died so often is to blame for it. All but the first time it was
            alone with other suspects' work out of the way.
        max_storage_errors: So often the disk may refuse; a full one is waited for without end.
    """

    first_wait_s: float = 1.0
    max_wait_s: float = 30.0
    max_crashes: int = 3
    max_storage_errors: int = 8


class Patience:
    """Tries again for one job.

    Args:
        suspects: One lock for all jobs, held by whoever tries again after a crash: a text that kills the worker must
            not take the blame from, or give it to, texts that were only there.
        on_wait: Called when `waits_for_model` has become something else.

    Attributes:
        waiting_for: Why the job does not get on; None while it does.
        waits_for_model: Whether that is its model, which others may have no use for.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        suspects: asyncio.Lock,
        *,
        name: dict[str, object],
        on_wait: Callable[[], None] = lambda: None,
    ) -> None:
        """`name` goes with the lines in the log."""
        self._policy = policy
        self._suspects = suspects
        self._name = name
        self._on_wait = on_wait
        self.waiting_for: str | None = None
        self.waits_for_model = False

    async def call(self, work: Callable[[], Awaitable[T]]) -> T:
        """Await `work()`, as often as it takes; all other errors are the caller's.

        Raises:
            WorkerCrashed, StorageError: Too often.
        """
        wait_s = self._policy.first_wait_s
        num_crashes = num_storage_errors = 0
        while True:
            try:
                async with self._suspects if num_crashes else nullcontext():
                    result = await work()
            except (ModelUnavailable, StorageError) as exc:
                num_crashes += isinstance(exc, WorkerCrashed)
                num_storage_errors += isinstance(exc, StorageError) and not isinstance(exc, StorageFull)
                if num_crashes >= self._policy.max_crashes or num_storage_errors >= self._policy.max_storage_errors:
                    raise
                # Of a model that has too much to do, more jobs would ask for more.
                self._wait_for(exc.message, is_model=isinstance(exc, ModelUnavailable) and type(exc) is not Overloaded)
            else:
                self.waiting_for = None
                self._set_waits_for_model(False)
                return result
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, self._policy.max_wait_s)

    def note_wait_for_model(self, reason: str) -> None:
        """Say, in what is awaited by `call`, that an answer of the model will take a while; until it succeeds."""
        self.waiting_for = self.waiting_for or reason
        self._set_waits_for_model(True)

    def _wait_for(self, reason: str, *, is_model: bool) -> None:
        if self.waiting_for != reason:
            logger.warning("ingestion waits", extra={**self._name, "reason": reason})
        self.waiting_for = reason
        self._set_waits_for_model(is_model)

    def _set_waits_for_model(self, waits: bool) -> None:
        if waits != self.waits_for_model:
            self.waits_for_model = waits
            self._on_wait()
