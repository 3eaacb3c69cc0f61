"""Keys in the database. Every function runs inside a transaction that its caller opens (`Database.read`, `write`)."""

from __future__ import annotations

import sqlite3

import msgspec

from server.access.api_key import ApiKey
from server.caller import KeyLimits, KeyScope
from server.errors import ObjectNotFound, StorageError

TABLE = "keys"

_COLUMNS = "id, digest, hint, name, tenant, scopes, models, limits, created_at, expires_at, revoked_at"

_scopes_decoder = msgspec.json.Decoder(frozenset[KeyScope])
_models_decoder = msgspec.json.Decoder(frozenset[str])
_limits_decoder = msgspec.json.Decoder(KeyLimits)


def insert(db: sqlite3.Connection, key: ApiKey) -> None:
    db.execute(
        f"INSERT INTO keys ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608  # a constant
        (
            *(key.id, key.digest, key.hint, key.name, key.tenant),
            _json(sorted(key.scopes)),
            None if key.models is None else _json(sorted(key.models)),
            _json(key.limits),
            *(key.created_at, key.expires_at, key.revoked_at),
        ),
    )


def select(db: sqlite3.Connection) -> list[ApiKey]:
    """Return all keys there have ever been, oldest first."""
    rows = db.execute(f"SELECT {_COLUMNS} FROM keys ORDER BY created_at, rowid")  # noqa: S608  # a constant
    return [_key(row) for row in rows]


def find(db: sqlite3.Connection, key_id: str) -> ApiKey:
    """Raises ObjectNotFound."""
    row = db.execute(f"SELECT {_COLUMNS} FROM keys WHERE id = ?", (key_id,)).fetchone()  # noqa: S608  # a constant
    if row is None:
        raise ObjectNotFound(f"there is no key {key_id!r}; see `hearth key list`")
    return _key(row)


def revoke(db: sqlite3.Connection, key_id: str, *, now: int) -> ApiKey:
    """End a key for good; one that is revoked stays as it is. Raises ObjectNotFound."""
    db.execute("UPDATE keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL", (now, key_id))
    return find(db, key_id)


def end_by(db: sqlite3.Connection, key_id: str, *, at: int) -> None:
    """Let a key expire then, unless it does before."""
    db.execute("UPDATE keys SET expires_at = min(coalesce(expires_at, ?), ?) WHERE id = ?", (at, at, key_id))


def change_number(db: sqlite3.Connection) -> int:
    """Return a number that is another one after each change of a key, whichever process made it."""
    [(number,)] = db.execute("SELECT number FROM key_changes")
    return int(number)


def _key(row: tuple[object, ...]) -> ApiKey:
    key_id, digest, hint, name, tenant, scopes, models, limits, created_at, expires_at, revoked_at = row
    try:
        fields = {
            **{"id": key_id, "digest": digest, "hint": hint, "name": name, "tenant": tenant},
            "scopes": _scopes_decoder.decode(str(scopes)),
            "models": None if models is None else _models_decoder.decode(str(models)),
            "limits": _limits_decoder.decode(str(limits)),
            **{"created_at": created_at, "expires_at": expires_at, "revoked_at": revoked_at},
        }
        return msgspec.convert(fields, ApiKey)
    except msgspec.MsgspecError as exc:  # somebody else has written to the file
        raise StorageError(f"key {key_id!r} cannot be read: {exc}") from exc


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
