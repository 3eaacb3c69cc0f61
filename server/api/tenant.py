"""Who sent a request, and whose files and vector stores it is about."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from starlette.requests import HTTPConnection
from starlette.types import Scope

from server.caller import Caller

ANYBODY = Caller()
"""Who asks a server that has no keys."""

NOBODY = Caller(tenant="", scopes=frozenset(), models=frozenset())
"""Who asks without a key what needs none, of a server that has some; and whoever is turned away at the door."""

_caller: ContextVar[Caller] = ContextVar("caller", default=ANYBODY)


@contextmanager
def asked_by(scope: Scope, caller: Caller) -> Iterator[None]:
    """Note who sent this request, for everything behind the door and for all that is done meanwhile."""
    set_caller(scope, caller)
    token = _caller.set(caller)
    try:
        yield
    finally:
        _caller.reset(token)


def allowed_models() -> frozenset[str] | None:
    """Ids of the models that the request may ask on behalf of which this runs; None: all, as for the server's own work.

    A context variable, and no argument of each service, so that no way to a model can forget it.
    """
    return _caller.get().models


def set_caller(scope: Scope, caller: Caller) -> None:
    """Note who sent this request, for everything behind the door."""
    scope.setdefault("state", {})["caller"] = caller


def caller_of(connection: HTTPConnection | Scope, *, unknown: Caller = ANYBODY) -> Caller:
    """Whoever sent this request; `unknown` before that was looked at."""
    caller = connection["state"].get("caller", unknown)
    assert isinstance(caller, Caller)
    return caller


def tenant_of(connection: HTTPConnection | Scope) -> str:
    """The tenant of the caller."""
    return caller_of(connection).tenant
