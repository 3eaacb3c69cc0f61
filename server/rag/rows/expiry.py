"""What has outlived its time: files go; stores lose their contents, but stay listed with their documents."""

from __future__ import annotations

import sqlite3

from server.rag.documents import Expired
from server.rag.rows import files, lists, stores, sweeps


def expire(db: sqlite3.Connection, now: int) -> Expired:
    lists.forget_oldest(db)
    old_files = db.execute("SELECT tenant, id FROM files WHERE expires_at <= ?", (now,)).fetchall()
    changes = [change for tenant, file_id in old_files for change in files.delete(db, tenant, file_id)]
    old_stores = db.execute(
        "SELECT row_id, id FROM vector_stores WHERE expires_after_days IS NOT NULL AND NOT is_expired "
        "AND last_active_at + 86400 * expires_after_days <= ? AND tenant != ?",
        (now, stores.NOBODY),
    ).fetchall()
    for store_row, _ in old_stores:
        db.execute("UPDATE vector_stores SET is_expired = 1 WHERE row_id = ?", (store_row,))
        sweeps.begin(db, store_row)
    return Expired(
        file_ids=tuple(file_id for _, file_id in old_files),
        store_ids=tuple(store_id for _, store_id in old_stores),
        changes=tuple(changes),
    )
