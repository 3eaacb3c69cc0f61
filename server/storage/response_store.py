"""Responses as SQLite keeps them, with their items, for as long as somebody may go on from them.

A response names the one that it goes on from and holds only what was new in it: a conversation is a chain of them.
What is in a body is the business of those who write it; here it is text.

Any method raises StorageError, and `add` StorageFull, with nothing changed. What is another tenant's does not exist.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from server.errors import InvalidRequest, ObjectNotFound
from server.storage.database import Database

RETENTION_S = 30 * 86_400
"""Counted from the last use; OpenAI's, too."""

MAX_RESPONSES = 100_000
MAX_BYTES = 1 << 30
"""Of all responses: beyond either, of the tenant that has most those go first that were not used for longest."""

MAX_CHAIN = 1000
"""Responses in one conversation. No context is so long, and each is looked up."""

MAX_CHAIN_ITEMS = 10_000
MAX_CHAIN_BYTES = 32 << 20
"""Of one conversation: as much as a request may have, by default."""

_SLICE = 500  # responses that one transaction lets go of


@dataclass(frozen=True)
class StoredItem:
    """One item of a conversation. `body` is JSON."""

    id: str
    body: str


@dataclass(frozen=True, kw_only=True)
class StoredResponse:
    """A response as it is kept.

    Attributes:
        previous_id: Of the response that it goes on from; None: it begins a conversation.
        created_at: Unix time.
        body: JSON of the response without its output.
        inputs: What was sent for it, without what came with `previous_id`.
        outputs: What it gave.
    """

    id: str
    previous_id: str | None
    created_at: int
    body: str
    inputs: tuple[StoredItem, ...]
    outputs: tuple[StoredItem, ...]

    @property
    def num_bytes(self) -> int:
        texts = (self.body, *(item.body for item in (*self.inputs, *self.outputs)))
        return sum(len(text.encode()) for text in texts)


class ResponseStore:
    """The one door to what is stored of responses. Methods may run side by side; writes take turns."""

    def __init__(
        self,
        database: Database,
        *,
        max_responses: int = MAX_RESPONSES,
        max_bytes: int = MAX_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take an open database; closing it stays with the caller."""
        self._database = database
        self._max_responses = max_responses
        self._max_bytes = max_bytes
        self._clock = clock

    async def add(self, tenant: str, response: StoredResponse) -> None:
        """Keep a response, and the conversation before it as long as it. `response.id` is new."""
        now = int(self._clock())
        await self._database.write(lambda db: _insert(db, tenant, response, now))

    async def get(self, tenant: str, response_id: str) -> tuple[str, list[str]]:
        """Return the body of a response, and those of its output. Raises ObjectNotFound."""

        def work(db: sqlite3.Connection) -> tuple[str, list[str]]:
            row_id = _row_of(db, tenant, response_id)
            [(body,)] = db.execute("SELECT body FROM responses WHERE row_id = ?", (row_id,))
            return str(body), _bodies(db, row_id, only_output=True)

        return await self._database.read(work)

    async def conversation(self, tenant: str, response_id: str) -> list[str]:
        """Return the bodies of all items that led to a response, and of its own, in order.

        Raises:
            ObjectNotFound: It, or one before it, is not there (any more).
            InvalidRequest: The conversation has become too long.
        """
        return await self._database.read(lambda db: _conversation(db, tenant, response_id))

    async def items(self, tenant: str, item_ids: Sequence[str]) -> dict[str, str]:
        """Return the bodies of items by id, of each as it was stored last, as far as they are there."""
        query = (
            "SELECT i.id, i.body, max(i.row_id) FROM response_items AS i JOIN responses AS r ON r.row_id = "
            "i.response_row WHERE r.tenant = ? AND i.id IN (SELECT value FROM json_each(?)) GROUP BY i.id"
        )
        values = (tenant, json.dumps(list(item_ids)))
        return await self._database.read(lambda db: {id_: body for id_, body, _ in db.execute(query, values)})

    async def inputs(
        self, tenant: str, response_id: str, *, limit: int, order: Literal["asc", "desc"], after: str | None = None
    ) -> tuple[list[str], bool]:
        """Return the bodies of items that were sent for a response; the flag tells whether there are more.

        Raises:
            ObjectNotFound: There is no such response.
            InvalidRequest: `after` is not the id of one of these items.
        """
        return await self._database.read(
            lambda db: _inputs(db, _row_of(db, tenant, response_id), limit=limit, order=order, after=after)
        )

    async def delete(self, tenant: str, response_id: str) -> None:
        """Delete a response with its items; nothing can go on from it any more. Raises ObjectNotFound."""

        def work(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM responses WHERE row_id = ?", (_row_of(db, tenant, response_id),))

        await self._database.write(work, use_reserve=True)

    async def expire(self, now: int) -> int:
        """Let go of what was not used for 30 days, and of what is too much; return how many that were."""
        num_gone = 0
        work = partial(_expire_some, now=now, max_responses=self._max_responses, max_bytes=self._max_bytes)
        while num := await self._database.write(work, use_reserve=True):
            num_gone += num
        return num_gone


def _insert(db: sqlite3.Connection, tenant: str, response: StoredResponse, now: int) -> None:
    row_id = db.execute(
        "INSERT INTO responses (id, tenant, previous_id, created_at, last_used_at, num_bytes, body) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (response.id, tenant, response.previous_id, response.created_at, now, response.num_bytes, response.body),
    ).lastrowid
    items = [(False, item) for item in response.inputs] + [(True, item) for item in response.outputs]
    db.executemany(
        "INSERT INTO response_items (response_row, position, is_output, id, body) VALUES (?, ?, ?, ?, ?)",
        [(row_id, position, is_output, item.id, item.body) for position, (is_output, item) in enumerate(items)],
    )
    used = [(now, found) for found, _ in _chain(db, tenant, response.previous_id)]
    db.executemany("UPDATE responses SET last_used_at = ? WHERE row_id = ?", used)


def _conversation(db: sqlite3.Connection, tenant: str, response_id: str) -> list[str]:
    query = (
        "SELECT num_bytes, (SELECT count(*) FROM response_items WHERE response_row = r.row_id) FROM responses AS r "
        "WHERE r.row_id = ?"
    )
    rows: list[int] = []
    num_bytes = num_items = 0
    missing: str | None = response_id
    for row_id, previous_id in _chain(db, tenant, response_id):
        [(more_bytes, more_items)] = db.execute(query, (row_id,))
        rows.append(row_id)
        num_bytes, num_items = num_bytes + more_bytes, num_items + more_items
        missing = previous_id
        if len(rows) > MAX_CHAIN or num_items > MAX_CHAIN_ITEMS or num_bytes > MAX_CHAIN_BYTES:
            raise InvalidRequest(
                f"the conversation that response {response_id!r} ends has more than {MAX_CHAIN} responses, "
                f"{MAX_CHAIN_ITEMS} items or {MAX_CHAIN_BYTES >> 20} MiB; begin another one with what matters of it",
                param="previous_response_id",
            )
    if missing is not None:
        raise _not_found(missing, response_id)
    return [body for row_id in reversed(rows) for body in _bodies(db, row_id)]


def _chain(db: sqlite3.Connection, tenant: str, response_id: str | None) -> Iterator[tuple[int, str | None]]:
    """Yield the row of a response and the id of the one before it, then the same of that one, as far as they are there.

    It ends: a response was there before whatever goes on from it.
    """
    query = "SELECT row_id, previous_id FROM responses WHERE id = ? AND tenant = ?"
    while response_id is not None and (found := db.execute(query, (response_id, tenant)).fetchone()):
        row_id, response_id = found
        yield row_id, response_id


def _not_found(missing: str, response_id: str) -> ObjectNotFound:
    message = f"no response with id {missing!r}"
    if missing != response_id:
        message += f", from which response {response_id!r} goes on: it was deleted, or not used for too long"
    return ObjectNotFound(message, param="previous_response_id")


def _row_of(db: sqlite3.Connection, tenant: str, response_id: str) -> int:
    found = db.execute("SELECT row_id FROM responses WHERE id = ? AND tenant = ?", (response_id, tenant)).fetchone()
    if found is None:
        raise ObjectNotFound(f"no response with id {response_id!r}")
    return int(found[0])


def _bodies(db: sqlite3.Connection, row_id: int, *, only_output: bool = False) -> list[str]:
    query = "SELECT body FROM response_items WHERE response_row = ? AND is_output >= ? ORDER BY position"
    return [body for (body,) in db.execute(query, (row_id, only_output))]


def _inputs(
    db: sqlite3.Connection, row_id: int, *, limit: int, order: Literal["asc", "desc"], after: str | None
) -> tuple[list[str], bool]:
    low, high = -1, 2**63 - 1
    if after is not None:
        query = "SELECT position FROM response_items WHERE response_row = ? AND id = ? AND NOT is_output"
        found = db.execute(query, (row_id, after)).fetchone()
        if found is None:
            raise InvalidRequest(
                f"after is {after!r}, which is not in this list; begin with its first page", param="after"
            )
        low, high = (found[0], high) if order == "asc" else (low, found[0])
    direction = "ASC" if order == "asc" else "DESC"
    rows = db.execute(
        "SELECT body FROM response_items WHERE response_row = ? AND NOT is_output AND position > ? AND position < ? "  # noqa: S608
        f"ORDER BY position {direction} LIMIT ?",
        (row_id, low, high, limit + 1),
    ).fetchall()
    return [body for (body,) in rows[:limit]], len(rows) > limit


def _expire_some(db: sqlite3.Connection, *, now: int, max_responses: int, max_bytes: int) -> int:
    old = "SELECT row_id FROM responses WHERE last_used_at <= ? LIMIT ?"
    gone = db.execute(old, (now - RETENTION_S, _SLICE)).fetchall() or _surplus(db, max_responses, max_bytes)
    db.executemany("DELETE FROM responses WHERE row_id = ?", gone)
    return len(gone)


def _surplus(db: sqlite3.Connection, max_responses: int, max_bytes: int) -> list[tuple[int]]:
    """Choose what is too much, each of whoever has most just then: nobody's many drive out another's few."""
    numbers: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    held_by = "SELECT tenant, count(*), sum(num_bytes) FROM responses GROUP BY tenant"
    for tenant, number, num_bytes in db.execute(held_by):
        numbers[tenant], sizes[tenant] = number, num_bytes
    num_left, bytes_left = numbers.total(), sizes.total()
    query = "SELECT row_id, num_bytes FROM responses WHERE tenant = ? ORDER BY last_used_at, row_id LIMIT ?"
    oldest: dict[str, Iterator[tuple[int, int]]] = {}
    gone: list[tuple[int]] = []
    while len(gone) < _SLICE and (num_left > max_responses or bytes_left > max_bytes):
        held = numbers if num_left > max_responses else sizes
        tenant = max(held, key=held.__getitem__)
        if tenant not in oldest:
            oldest[tenant] = iter(db.execute(query, (tenant, _SLICE)).fetchall())
        row_id, num_bytes = next(oldest[tenant])
        gone.append((row_id,))
        numbers[tenant] -= 1
        sizes[tenant] -= num_bytes
        num_left, bytes_left = num_left - 1, bytes_left - num_bytes
    return gone
