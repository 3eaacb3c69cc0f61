"""Pages of lists. An object's position is a number that later objects exceed; cursors are ids.

A cursor whose object has been deleted still works: clients delete what they page through.
"""

from __future__ import annotations

import sqlite3

from server.errors import InvalidRequest
from server.rag.paging import Page
from server.rag.rows import named

_MAX_REMOVED = 100_000  # positions that are remembered; a list is rarely paged through longer


def select_page(
    db: sqlite3.Connection,
    query: str,
    values: dict[str, object],
    *,
    page: Page,
    list_name: str,
    position_query: str,
) -> tuple[list[sqlite3.Row], bool]:
    """Run `query` for a page.

    Args:
        query: Selects positions between `:low` and `:high`, both excluded, and ends in ORDER BY the position.
        position_query: Selects the position of the object with id `:id`.
        list_name: Under which `remember` was told of those that are gone.

    Returns:
        The rows, and whether there are more in the direction of paging.

    Raises:
        InvalidRequest: A cursor names nothing that is or was in the list.
    """

    def position(cursor: str, param: str) -> int:
        removed = "SELECT position FROM removed WHERE list = :list AND id = :id"
        names = {**values, "id": cursor, "list": list_name}
        found = db.execute(position_query, names).fetchone() or db.execute(removed, names).fetchone()
        if found is None:
            message = f"{param} is {cursor!r}, which is not in this list; begin with its first page"
            raise InvalidRequest(message, param=param)
        return int(found[0])

    after = None if page.after is None else position(page.after, "after")
    before = None if page.before is None else position(page.before, "before")
    low, high = (after, before) if page.order == "asc" else (before, after)
    backwards = before is not None and after is None  # from the cursor towards the start
    descending = (page.order == "desc") != backwards
    bounds = {"low": -1 if low is None else low, "high": 2**63 - 1 if high is None else high, "limit": page.limit + 1}
    rows = named.select(db, f"{query} {'DESC' if descending else 'ASC'} LIMIT :limit", {**values, **bounds})
    wanted = rows[: page.limit]
    return wanted[::-1] if backwards else wanted, len(rows) > page.limit


def remember(db: sqlite3.Connection, list_name: str, object_id: str, position: int) -> None:
    """Note where a deleted object stood."""
    db.execute("INSERT OR REPLACE INTO removed (list, id, position) VALUES (?, ?, ?)", (list_name, object_id, position))


def forget(db: sqlite3.Connection, list_name: str, num_rows: int) -> bool:
    """Take some of what stood in a list that is gone; false if there was nothing."""
    some = "SELECT row_id FROM removed WHERE list = ? LIMIT ?"
    return db.execute(f"DELETE FROM removed WHERE row_id IN ({some})", (list_name, num_rows)).rowcount > 0  # noqa: S608


def forget_oldest(db: sqlite3.Connection) -> None:
    db.execute("DELETE FROM removed WHERE row_id <= (SELECT max(row_id) FROM removed) - ?", (_MAX_REMOVED,))
