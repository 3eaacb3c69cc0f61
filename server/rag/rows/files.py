"""Rows of uploaded files."""

from __future__ import annotations

import sqlite3
from dataclasses import asdict

from server.errors import Conflict, ObjectNotFound
from server.rag.documents import ChunkChange, FileRecord
from server.rag.paging import Page
from server.rag.rows import documents, lists, named, stores

_SELECT = "SELECT row_id, id, filename, purpose, num_bytes, sha256, created_at, expires_at FROM files"


def insert(db: sqlite3.Connection, tenant: str, file: FileRecord) -> None:
    db.execute(
        "INSERT INTO files (id, tenant, filename, purpose, num_bytes, sha256, created_at, expires_at) "
        "VALUES (:id, :tenant, :filename, :purpose, :num_bytes, :sha256, :created_at, :expires_at)",
        {"tenant": tenant, **asdict(file)},
    )


def find(db: sqlite3.Connection, tenant: str, file_id: str) -> FileRecord:
    return _record(_row(db, tenant, file_id))


def select(db: sqlite3.Connection, tenant: str, *, purpose: str | None, page: Page) -> tuple[list[FileRecord], bool]:
    rows, has_more = lists.select_page(
        db,
        f"{_SELECT} WHERE tenant = :tenant AND (:purpose IS NULL OR purpose = :purpose) "
        "AND row_id > :low AND row_id < :high ORDER BY row_id",
        {"tenant": tenant, "purpose": purpose},
        page=page,
        list_name=_list_name(tenant),
        position_query="SELECT row_id FROM files WHERE tenant = :tenant AND id = :id",
    )
    return [_record(row) for row in rows], has_more


def all_ids(db: sqlite3.Connection) -> set[str]:
    return {file_id for (file_id,) in db.execute("SELECT id FROM files WHERE tenant != ?", (stores.NOBODY,))}


def contents(db: sqlite3.Connection) -> dict[str, tuple[int, str]]:
    """Return number of bytes and SHA-256 of all tenants' files, by id."""
    rows = db.execute("SELECT id, num_bytes, sha256 FROM files WHERE tenant != ?", (stores.NOBODY,))
    return {file_id: (num_bytes, sha256) for file_id, num_bytes, sha256 in rows}


def delete(db: sqlite3.Connection, tenant: str, file_id: str, *, if_unused: bool = False) -> list[ChunkChange]:
    """Raises Conflict for a file that is in a store, if it is to be deleted only `if_unused`."""
    file_row = _row(db, tenant, file_id)["row_id"]
    found = db.execute(
        "SELECT d.store_row, d.id, s.id, s.tenant FROM documents AS d "
        "JOIN vector_stores AS s ON s.row_id = d.store_row WHERE d.file_row = ?",
        (file_row,),
    ).fetchall()
    users = [store_id for _, _, store_id, owner in found if owner != stores.NOBODY]
    if if_unused and users:
        raise Conflict(f"file {file_id!r} is in vector store {users[0]!r}; take it out, or leave if_unused out")
    removed = [
        (documents.remove_row(db, store_row, document_id, file_id), owner) for store_row, document_id, _, owner in found
    ]
    changes = [change for change, owner in removed if owner != stores.NOBODY]
    db.execute("DELETE FROM files WHERE row_id = ?", (file_row,))
    lists.remember(db, _list_name(tenant), file_id, file_row)
    return changes


def _row(db: sqlite3.Connection, tenant: str, file_id: str) -> sqlite3.Row:
    found = named.select(db, f"{_SELECT} WHERE id = ? AND tenant = ?", (file_id, tenant))
    if not found:
        raise ObjectNotFound(f"no file with id {file_id!r}")
    return found[0]


def _record(row: sqlite3.Row) -> FileRecord:
    return FileRecord(
        id=row["id"],
        filename=row["filename"],
        purpose=row["purpose"],
        num_bytes=row["num_bytes"],
        sha256=row["sha256"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
    )


def _list_name(tenant: str) -> str:
    return f"files of {tenant}"
