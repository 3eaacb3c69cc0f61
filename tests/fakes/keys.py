"""Keys for tests: what clients send, and what is kept of it."""

from __future__ import annotations

from typing import Any

from server.access.api_key import ApiKey, digest_of, hint_of
from server.caller import KeyScope

ALL_SCOPES: frozenset[KeyScope] = frozenset(("inference", "rag", "admin", "metrics"))


def key_named(name: str, **changes: Any) -> tuple[str, ApiKey]:
    """A key and its record; one that may do everything, unless it is said otherwise."""
    text = f"hk-{name}-{'x' * 40}"
    fields = {"scopes": ALL_SCOPES, "created_at": 1_700_000_000, **changes}
    return text, ApiKey(id=f"key_{name}", digest=digest_of(text), hint=hint_of(text), name=name, **fields)
