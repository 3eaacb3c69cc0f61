"""Who sent a request, and whose files and vector stores it is about."""

from __future__ import annotations

from starlette.requests import HTTPConnection
from starlette.types import Scope

from server.types import Caller

ANYBODY = Caller()
"""Who asks a server that has no keys."""


def set_caller(scope: Scope, caller: Caller) -> None:
    """Note who sent this request, for everything behind the door."""
    scope.setdefault("state", {})["caller"] = caller


def caller_of(connection: HTTPConnection | Scope) -> Caller:
    """Whoever sent this request."""
    caller = connection["state"].get("caller", ANYBODY)
    assert isinstance(caller, Caller)
    return caller


def tenant_of(connection: HTTPConnection | Scope) -> str:
    """The tenant of the caller."""
    return caller_of(connection).tenant
