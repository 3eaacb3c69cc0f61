"""Who sends requests, and what they may do: tenant, scopes, models and limits. How a key says so: `server/access`."""

from __future__ import annotations

from typing import Literal

import msgspec

from server.types import DEFAULT_TENANT

KeyScope = Literal["inference", "rag", "admin", "metrics"]
"""What a key may be used for: asking models, files and vector stores, running the server, reading its metrics."""


class KeyLimits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one key may use. None: no bound.

    Attributes:
        tokens_per_minute, tokens_per_day: Of prompts and answers together, those from a cache included.
        cost_per_day: In the unit of the prices in models.yaml.
        weight: Share of a busy model that the key's tenant gets, against the weights of the others who want it.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None
    tokens_per_day: int | None = None
    cost_per_day: float | None = None
    weight: float = 1.0


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who sent a request, and what they may do.

    Attributes:
        tenant: Owns files, vector stores, responses and usage; only requests of one tenant share prefixes.
        key_id: None: without a key, which a server that has none allows.
        models: Ids of the models that may be asked; None: all.
    """

    tenant: str = DEFAULT_TENANT
    key_id: str | None = None
    scopes: frozenset[KeyScope] = frozenset(("inference", "rag", "admin", "metrics"))
    models: frozenset[str] | None = None
    limits: KeyLimits = KeyLimits()
