"""Usage reports, made one after the other: each reads a large table, and whoever asks for hundreds holds up nobody else
who needs the database, as what looks after revoked keys does.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from server.errors import LimitExceeded

MAX_OF_TENANT = 4
"""Reports of one tenant that are made or wait."""

REPORT_S = 20.0
"""So long one may take."""

RETRY_AFTER_S = 5.0


class Patience:
    """How long a report is waited for. Any thread may ask."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds
        self._is_lost = False

    def lose(self) -> None:
        """Nobody waits any more."""
        self._is_lost = True

    @property
    def is_over(self) -> bool:
        return self._is_lost or time.monotonic() >= self._until


class ReportQueue:
    """Lets one report be made at a time. On the event loop only."""

    def __init__(self) -> None:
        self._making = asyncio.Lock()
        self._num_of: Counter[str | None] = Counter()

    @asynccontextmanager
    async def turn(self, tenant: str | None) -> AsyncIterator[Patience]:
        """Wait for the turn of a report of this tenant (None: of all); what is made then has so much patience.

        Raises:
            LimitExceeded: Too many of this tenant wait already.
        """
        if self._num_of[tenant] >= MAX_OF_TENANT:
            raise LimitExceeded(
                f"{MAX_OF_TENANT} usage reports of this tenant are being made already; wait for one to end",
                retry_after_s=RETRY_AFTER_S,
            )
        self._num_of[tenant] += 1
        try:
            async with self._making:
                patience = Patience(REPORT_S)
                try:
                    yield patience
                finally:
                    patience.lose()
        finally:
            self._num_of[tenant] -= 1
            if not self._num_of[tenant]:
                del self._num_of[tenant]
