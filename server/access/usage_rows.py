"""The table `usage`: written record by record, read in groups."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from server.access.usage_record import COMPLETED, UsageRecord
from server.access.usage_report_queue import REPORT_S, Patience
from server.errors import InvalidRequest

Dimension = Literal["model", "key", "tenant", "sender", "day", "kind", "status"]
"""What a report may be grouped by. Days are UTC's."""

_COLUMNS: dict[Dimension, str] = {
    "model": "model",
    "key": "key_id",
    "tenant": "tenant",
    "sender": "sender",
    "day": "date(at_ms / 1000, 'unixepoch')",
    "kind": "kind",
    "status": "status",
}

_INSERT = f"INSERT OR IGNORE INTO usage VALUES ({', '.join('?' * 20)})"  # noqa: S608  # nothing but question marks

MAX_GROUPS = 10_000
"""Of one report."""

_STEPS_PER_LOOK = 10_000  # of SQLite's machine, less than a millisecond, between two looks at what patience is left


@dataclass(frozen=True, kw_only=True)
class UsageQuery:
    """What a report is about.

    Attributes:
        group_by: In this order; none: one line for all.
        tenant: Only this one's; None: everybody's.
        from_ms, to_ms: Unix milliseconds; the first belongs to it, the other not.
    """

    group_by: tuple[Dimension, ...] = ()
    tenant: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None


@dataclass(frozen=True, kw_only=True)
class UsageGroup:
    """One line of a report.

    Attributes:
        values: Of the dimensions that it is grouped by; None: without a key, or a sender.
        num_requests: Requests that a model in this group worked for. One that several models worked for is in the
            group of each, and in a group of all of them once.
        num_failed: Those of them that did not end well.
    """

    values: dict[str, str | None]
    num_requests: int
    num_failed: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    cost: float


def insert(db: sqlite3.Connection, records: Iterable[UsageRecord]) -> None:
    """Add records; those that are there already stay as they are."""
    rows = [
        (
            *(record.id, use.model, use.kind, record.at_ms, record.tenant, record.key_id, record.sender),
            *(record.request_id, record.path, record.status),
            *(use.prompt_tokens, use.cached_tokens, use.completion_tokens),
            *(use.input_price, use.output_price, use.cached_price, use.cost),
            *(record.queue_ms, record.ttft_ms, record.duration_ms),
        )
        for record in records
        for use in record.uses
    ]
    db.executemany(_INSERT, rows)


def report(db: sqlite3.Connection, query: UsageQuery, patience: Patience) -> list[UsageGroup]:
    """Return the groups, in the order of their values; one more than `MAX_GROUPS` where there are too many.

    Raises:
        InvalidRequest: The patience was over before.
    """
    columns = [_COLUMNS[dimension] for dimension in query.group_by]
    conditions, values = _conditions(query)
    grouping = ", ".join(map(str, range(1, len(columns) + 1)))
    tail = f"GROUP BY {grouping} ORDER BY {grouping}" if columns else ""
    selected = ", ".join(
        [
            *columns,
            "COUNT(DISTINCT request)",
            f"COUNT(DISTINCT CASE WHEN status <> '{COMPLETED}' THEN request END)",
            *(f"COALESCE(SUM({name}), 0)" for name in ("prompt_tokens", "cached_tokens", "completion_tokens", "cost")),
        ]
    )
    statement = f"SELECT {selected} FROM usage {conditions} {tail} LIMIT {MAX_GROUPS + 1}"  # noqa: S608
    db.set_progress_handler(lambda: patience.is_over, _STEPS_PER_LOOK)
    try:
        return [_group_of(query.group_by, row) for row in db.execute(statement, values)]
    except sqlite3.OperationalError as exc:
        if exc.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        raise InvalidRequest(
            f"the report takes more than {REPORT_S:g} s; ask for less time, or group by less", param="from"
        ) from exc
    finally:
        db.set_progress_handler(None, 0)


def totals_by_key(db: sqlite3.Connection, from_ms: int, to_ms: int) -> dict[str, tuple[int, float]]:
    """Return tokens and cost of each key, of requests that came then."""
    rows = db.execute(
        "SELECT key_id, SUM(prompt_tokens + completion_tokens), SUM(cost) FROM usage "
        "WHERE at_ms >= ? AND at_ms < ? AND key_id IS NOT NULL GROUP BY key_id",
        (from_ms, to_ms),
    )
    return {key_id: (num_tokens, cost) for key_id, num_tokens, cost in rows}


def delete_before(db: sqlite3.Connection, at_ms: int, *, limit: int) -> int:
    """Delete the rows of so many requests that came before; return how many rows went."""
    found = "SELECT request FROM usage WHERE at_ms < ? LIMIT ?"
    return db.execute(f"DELETE FROM usage WHERE request IN ({found})", (at_ms, limit)).rowcount  # noqa: S608


def _conditions(query: UsageQuery) -> tuple[str, Sequence[str | int]]:
    wanted: list[tuple[str, str | int]] = []
    if query.tenant is not None:
        wanted.append(("tenant = ?", query.tenant))
    if query.from_ms is not None:
        wanted.append(("at_ms >= ?", query.from_ms))
    if query.to_ms is not None:
        wanted.append(("at_ms < ?", query.to_ms))
    conditions = " AND ".join(condition for condition, _ in wanted)
    return (f"WHERE {conditions}" if wanted else ""), [value for _, value in wanted]


def _group_of(dimensions: Sequence[Dimension], row: tuple[Any, ...]) -> UsageGroup:
    split = len(dimensions)
    num_requests, num_failed, prompt_tokens, cached_tokens, completion_tokens, cost = row[split:]
    return UsageGroup(
        values={name: None if value is None else str(value) for name, value in zip(dimensions, row, strict=False)},
        num_requests=num_requests,
        num_failed=num_failed,
        prompt_tokens=prompt_tokens,
        cached_tokens=cached_tokens,
        completion_tokens=completion_tokens,
        cost=cost,
    )
