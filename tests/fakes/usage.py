"""A usage ledger over a real database, and records to keep in it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from server.access.usage_ledger import UsageLedger
from server.access.usage_record import COMPLETED, ModelUse, UsageRecord
from server.storage.database import Database
from server.storage.schema import ACCOUNT_MIGRATIONS

NOON_MS = 1_788_004_800_000
"""Of 2026-08-29, UTC."""

_ids = itertools.count()


def use(model: str = "talker", prompt: int = 10, completion: int = 5, cached: int = 0, **more: Any) -> ModelUse:
    tokens = {"prompt_tokens": prompt, "completion_tokens": completion, "cached_tokens": cached}
    return ModelUse(model=model, **{"kind": "chat", **tokens, **more})


def record(*uses: ModelUse, **more: Any) -> UsageRecord:
    """A request that is over; of one model unless uses say otherwise."""
    facts: dict[str, Any] = {
        "id": f"use_{next(_ids)}",
        "at_ms": NOON_MS,
        "tenant": "ada",
        "request_id": "r1",
        "path": "/v1/chat/completions",
        "status": COMPLETED,
        "duration_ms": 100.0,
        "uses": uses or (use(),),
    }
    return UsageRecord(**{**facts, **more})


@asynccontextmanager
async def open_database(folder: Path) -> AsyncIterator[Database]:
    database = await asyncio.to_thread(Database.open, folder / "accounts.sqlite", ACCOUNT_MIGRATIONS)
    try:
        yield database
    finally:
        await asyncio.to_thread(database.close)


@asynccontextmanager
async def open_ledger(folder: Path, *, at: float = NOON_MS / 1000) -> AsyncIterator[UsageLedger]:
    """A ledger whose clock stands still; it is closed in good order."""
    async with open_database(folder) as database:
        ledger = UsageLedger(lambda: database, folder / "usage", clock=lambda: at)
        async with ledger.opened(retention_days=400):
            yield ledger


@asynccontextmanager
async def doomed_ledger(folder: Path, *, at: float = NOON_MS / 1000) -> AsyncIterator[UsageLedger]:
    """One whose process dies: nothing is folded at the end."""
    async with open_database(folder) as database:
        ledger = UsageLedger(lambda: database, folder / "usage", clock=lambda: at)
        await ledger.fold()
        yield ledger
        await ledger.close()
