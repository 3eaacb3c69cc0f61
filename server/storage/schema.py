"""Brings a database file to the schema that this version knows: scripts `NNNN_name.sql`, counted by `user_version`.

A script that was released is never changed; what comes after it is another one.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from importlib import resources
from pathlib import Path

from server.errors import StorageError

logger = logging.getLogger(__name__)


MIGRATIONS = "migrations"
"""Folder with the scripts of the database of documents."""

ACCOUNT_MIGRATIONS = "account_migrations"
"""The same of the database of keys and usage: another file, so that neither waits for the other's transactions."""


def read_scripts(name: str = MIGRATIONS) -> list[str]:
    """Return the migrations of this folder in order; the first is number 1."""
    folder = resources.files("server.storage") / name
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    assert [int(file.name[:4]) for file in files] == list(range(1, len(files) + 1)), "a migration has a wrong number"
    return [file.read_text(encoding="utf-8") for file in files]


def upgrade(db: sqlite3.Connection, path: Path, scripts: Sequence[str]) -> None:
    """Run the scripts that `path` has not seen yet, all in one transaction; keep a copy of what was there before.

    Raises:
        StorageError: A newer version wrote the file.
    """
    [(version,)] = db.execute("PRAGMA user_version")
    check_version(path.name, version, len(scripts))
    if version == len(scripts):
        return
    if version > 0:
        _keep_copy(db, path.with_name(f"{path.stem}.schema-{version}{path.suffix}"))
    steps = "\n".join(scripts[version:])
    try:
        db.executescript(f"BEGIN IMMEDIATE;\n{steps}\n;PRAGMA user_version = {len(scripts)};\nCOMMIT;")
    except sqlite3.Error:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    if version > 0:
        logger.info("database upgraded", extra={"from_schema": version, "to_schema": len(scripts)})


def check_version(name: str, version: int, newest: int) -> None:
    """Refuse what a newer version wrote.

    Raises:
        StorageError: It did.
    """
    if version > newest:
        raise StorageError(
            f"{name} was written by a newer Hearth (schema {version}; this one knows up to {newest}); "
            "install that version, or restore a backup"
        )


def _keep_copy(db: sqlite3.Connection, copy: Path) -> None:
    part = copy.with_suffix(".part")
    part.unlink(missing_ok=True)
    with closing(sqlite3.connect(part)) as target:
        db.backup(target)
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(copy)
