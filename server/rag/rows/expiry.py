"""What has outlived its time: files go; stores lose their chunks, but stay listed with their documents."""

from __future__ import annotations

import sqlite3

from server.rag.documents import ChunkChange
from server.rag.rows import chunks, files, jobs, lists, stores


def expire(db: sqlite3.Connection, now: int) -> tuple[list[str], list[ChunkChange]]:
    lists.forget_oldest(db)
    old_files = db.execute("SELECT tenant, id FROM files WHERE expires_at <= ?", (now,)).fetchall()
    changes = [change for tenant, file_id in old_files for change in files.delete(db, tenant, file_id)]
    old_stores = db.execute(
        "SELECT row_id FROM vector_stores WHERE expires_after_days IS NOT NULL AND NOT is_expired "
        "AND last_active_at + 86400 * expires_after_days <= ?",
        (now,),
    ).fetchall()
    changes += [_expire_store(db, store_row) for (store_row,) in old_stores]
    return [file_id for _, file_id in old_files], changes


def _expire_store(db: sqlite3.Connection, store_row: int) -> ChunkChange:
    running = db.execute("SELECT id FROM documents WHERE store_row = ? AND status = 'in_progress'", (store_row,))
    jobs.cancel(db, [document_id for (document_id,) in running])
    removed_ids = chunks.delete_all(db, store_row)
    db.execute("UPDATE documents SET usage_bytes = 0 WHERE store_row = ?", (store_row,))
    db.execute("UPDATE vector_stores SET is_expired = 1 WHERE row_id = ?", (store_row,))
    store_id, generation = stores.next_generation(db, store_row)
    return ChunkChange(store_id=store_id, generation=generation, removed_ids=removed_ids)
