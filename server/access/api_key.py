"""What a key is, and what is kept of it: never the key itself, only its digest."""

from __future__ import annotations

import hashlib
import secrets
from typing import Literal

import msgspec

from server.caller import Caller, KeyLimits, KeyScope
from server.types import DEFAULT_TENANT

PREFIX = "hk-"
"""By which scanners of source code, and people, tell what they have found."""

_NUM_RANDOM_BYTES = 32  # nobody guesses 256 bits, so a fast digest without salt is as good as a slow one
_HINT_CHARS = len(PREFIX) + 4

KeyState = Literal["active", "expired", "revoked"]


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """One key of one tenant. Times are Unix seconds.

    Attributes:
        digest: SHA-256 of the key.
        hint: Its first characters, by which people tell keys apart.
        name: For people; may be empty.
        models: Ids of the models that may be asked; None: all.
    """

    id: str
    digest: bytes
    hint: str
    created_at: int
    name: str = ""
    tenant: str = DEFAULT_TENANT
    scopes: frozenset[KeyScope] = frozenset()
    models: frozenset[str] | None = None
    limits: KeyLimits = KeyLimits()
    expires_at: int | None = None
    revoked_at: int | None = None

    def state(self, now: float) -> KeyState:
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"

    @property
    def caller(self) -> Caller:
        """Whoever has the key."""
        return Caller(tenant=self.tenant, key_id=self.id, scopes=self.scopes, models=self.models, limits=self.limits)


def new_key() -> str:
    """Make a key. Whoever forgets it has to make another one."""
    return PREFIX + secrets.token_urlsafe(_NUM_RANDOM_BYTES)


def new_key_id() -> str:
    return f"key_{secrets.token_hex(8)}"


def digest_of(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def hint_of(key: str) -> str:
    return key[:_HINT_CHARS]
