"""Rows of vector stores."""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from server.errors import Conflict, ObjectNotFound, Reindexed
from server.rag.documents import ChunkingStrategy, StatusCounts, StoreChanges, StoreRecord
from server.rag.paging import Page
from server.rag.rows import lists, named

NOBODY = ""
"""The tenant of stores that are deleted, or not imported to their end yet, and of the files of the latter: no tenant is
called so, and every look-up passes them by."""

_SELECT = (
    "SELECT row_id, id, name, description, metadata, created_at, last_active_at, expires_after_days, is_expired, "
    "embedding_model, fingerprint, dimensions, chunking, generation, edition FROM vector_stores"
)


@dataclass(frozen=True, kw_only=True)
class NewStore:
    """A store before it has an id; attributes as in `StoreRecord`."""

    name: str
    description: str
    metadata: dict[str, str]
    expires_after_days: int | None
    embedding_model: str
    fingerprint: str
    dimensions: int
    chunking: ChunkingStrategy


def insert(db: sqlite3.Connection, tenant: str, new: NewStore, *, now: int) -> StoreRecord:
    store_id = f"vs_{secrets.token_hex(16)}"
    db.execute(
        "INSERT INTO vector_stores (id, tenant, name, description, metadata, created_at, last_active_at, "
        "expires_after_days, embedding_model, fingerprint, dimensions, chunking) "
        "VALUES (:id, :tenant, :name, :description, :metadata, :now, :now, "
        ":expires_after_days, :embedding_model, :fingerprint, :dimensions, :chunking)",
        {
            "id": store_id,
            "tenant": tenant,
            "name": new.name,
            "description": new.description,
            "metadata": json.dumps(new.metadata),
            "now": now,
            "expires_after_days": new.expires_after_days,
            "embedding_model": new.embedding_model,
            "fingerprint": new.fingerprint,
            "dimensions": new.dimensions,
            "chunking": chunking_json(new.chunking),
        },
    )
    return find(db, tenant, store_id)


def find(db: sqlite3.Connection, tenant: str, store_id: str) -> StoreRecord:
    [row] = named.select(db, f"{_SELECT} WHERE row_id = ?", (row_of(db, tenant, store_id),))
    return _record(db, row)


def ids_of(db: sqlite3.Connection, tenant: str, name: str) -> list[str]:
    """Return the ids of a tenant's stores of this name, or of this id; names need not be unique."""
    query = "SELECT id FROM vector_stores WHERE tenant = ? AND ? IN (id, name) AND NOT is_expired ORDER BY row_id"
    return [store_id for (store_id,) in db.execute(query, (tenant, name))]


def row_of(db: sqlite3.Connection, tenant: str, store_id: str) -> int:
    """Return the number of a tenant's store.

    Raises:
        ObjectNotFound: The tenant has none of that id.
    """
    query = "SELECT row_id FROM vector_stores WHERE id = ? AND tenant = ?"
    found = db.execute(query, (store_id, tenant)).fetchone()
    if found is None:
        raise ObjectNotFound(f"no vector store with id {store_id!r}")
    return int(found[0])


def row_of_any(db: sqlite3.Connection, store_id: str) -> int:
    """Return the number of a store, whoever's it is."""
    query = "SELECT row_id FROM vector_stores WHERE id = ? AND tenant != ?"
    found = db.execute(query, (store_id, NOBODY)).fetchone()
    if found is None:
        raise ObjectNotFound(f"no vector store with id {store_id!r}")
    return int(found[0])


def check_alive(db: sqlite3.Connection, store_row: int) -> None:
    [(store_id, is_expired)] = db.execute("SELECT id, is_expired FROM vector_stores WHERE row_id = ?", (store_row,))
    if is_expired:
        raise Conflict(f"vector store {store_id!r} has expired; create a new one with the same files")


def select(db: sqlite3.Connection, tenant: str, page: Page) -> tuple[list[StoreRecord], bool]:
    rows, has_more = lists.select_page(
        db,
        f"{_SELECT} WHERE tenant = :tenant AND row_id > :low AND row_id < :high ORDER BY row_id",
        {"tenant": tenant},
        page=page,
        list_name=_list_name(tenant),
        position_query="SELECT row_id FROM vector_stores WHERE tenant = :tenant AND id = :id",
    )
    return [_record(db, row) for row in rows], has_more


def update(db: sqlite3.Connection, tenant: str, store_id: str, changes: StoreChanges) -> StoreRecord:
    before = find(db, tenant, store_id)
    db.execute(
        "UPDATE vector_stores SET name = ?, metadata = ?, expires_after_days = ? WHERE row_id = ?",
        (
            changes.get("name", before.name),
            json.dumps(dict(changes.get("metadata", before.metadata))),
            changes.get("expires_after_days", before.expires_after_days),
            row_of(db, tenant, store_id),
        ),
    )
    return find(db, tenant, store_id)


def give_away(db: sqlite3.Connection, tenant: str, store_id: str) -> int:
    """Make a tenant's store one of nobody, without touching what is in it; return its number."""
    store_row = row_of(db, tenant, store_id)
    db.execute("UPDATE vector_stores SET tenant = ? WHERE row_id = ?", (NOBODY, store_row))
    lists.remember(db, _list_name(tenant), store_id, store_row)
    return store_row


def note_uses(db: sqlite3.Connection, uses: Mapping[str, int]) -> None:
    """Note when stores were used last, by id; some may be gone."""
    db.executemany(
        "UPDATE vector_stores SET last_active_at = max(last_active_at, ?) WHERE id = ?",
        ((now, store_id) for store_id, now in uses.items()),
    )


def generation(db: sqlite3.Connection, store_id: str) -> int:
    [(number,)] = db.execute("SELECT generation FROM vector_stores WHERE row_id = ?", (row_of_any(db, store_id),))
    return int(number)


def check_edition(db: sqlite3.Connection, store_row: int, edition: int) -> None:
    """Refuse what was made for another edition.

    Raises:
        Reindexed: The store has been reindexed since.
    """
    [(store_id, current)] = db.execute("SELECT id, edition FROM vector_stores WHERE row_id = ?", (store_row,))
    if current != edition:
        raise Reindexed(f"vector store {store_id!r} has just been reindexed; try again")


def mark(db: sqlite3.Connection, store_id: str) -> tuple[int, int]:
    """Return a store's generation and its mark, which no other content of any store has."""
    query = "SELECT generation, mark FROM vector_stores WHERE row_id = ?"
    [(number, its_mark)] = db.execute(query, (row_of_any(db, store_id),))
    return number, its_mark


def next_generation(db: sqlite3.Connection, store_row: int) -> tuple[str, int]:
    """Count a change of a store's chunks; return its id and the new generation."""
    db.execute("UPDATE vector_stores SET generation = generation + 1, mark = random() WHERE row_id = ?", (store_row,))
    [(store_id, number)] = db.execute("SELECT id, generation FROM vector_stores WHERE row_id = ?", (store_row,))
    return store_id, number


def chunking_json(chunking: ChunkingStrategy) -> str:
    return msgspec.json.encode(chunking).decode()


def chunking_of(content: str) -> ChunkingStrategy:
    return msgspec.json.decode(content, type=ChunkingStrategy)


def documents_list(store_row: int) -> str:
    """Name the list of a store's documents for `lists`."""
    return f"documents of {store_row}"


def _list_name(tenant: str) -> str:
    return f"stores of {tenant}"


def _record(db: sqlite3.Connection, row: sqlite3.Row) -> StoreRecord:
    by_status = db.execute(
        "SELECT status, number, usage_bytes FROM document_counts WHERE store_row = ?", (row["row_id"],)
    ).fetchall()
    return StoreRecord(
        id=row["id"],
        name=row["name"],
        description=row["description"],
        metadata=json.loads(row["metadata"]),
        created_at=row["created_at"],
        last_active_at=row["last_active_at"],
        expires_after_days=row["expires_after_days"],
        embedding_model=row["embedding_model"],
        fingerprint=row["fingerprint"],
        dimensions=row["dimensions"],
        chunking=chunking_of(row["chunking"]),
        generation=row["generation"],
        usage_bytes=0 if row["is_expired"] else sum(usage for _, _, usage in by_status),
        counts=StatusCounts(**{status: number for status, number, _ in by_status}),
        is_expired=bool(row["is_expired"]),
        edition=row["edition"],
    )
