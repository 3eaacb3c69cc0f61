"""Rows whose columns are asked for by name."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence


def select(
    db: sqlite3.Connection, query: str, values: Sequence[object] | Mapping[str, object] = ()
) -> list[sqlite3.Row]:
    cursor = db.cursor()
    cursor.row_factory = sqlite3.Row
    return cursor.execute(query, values).fetchall()
