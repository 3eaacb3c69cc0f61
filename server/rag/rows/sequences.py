"""Ids that are never given out twice, taken by the range."""

from __future__ import annotations

import sqlite3
from typing import Literal


def take(db: sqlite3.Connection, name: Literal["documents", "parents", "chunks", "editions"], num_ids: int) -> range:
    [(last,)] = db.execute("SELECT last FROM sequences WHERE name = ?", (name,))
    db.execute("UPDATE sequences SET last = ? WHERE name = ?", (last + num_ids, name))
    return range(last + 1, last + num_ids + 1)
