"""Whose files and vector stores a request is about."""

from __future__ import annotations

from starlette.requests import Request

from server.types import DEFAULT_TENANT


def tenant_of(_request: Request) -> str:
    """The tenant of the caller: one for all, as long as there are no keys."""
    return DEFAULT_TENANT
