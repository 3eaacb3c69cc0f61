"""Who sends a request: looked up by its key, before anything of its body is read."""

from __future__ import annotations

import logging
import math

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from server.access.failed_tries import FailedTries
from server.access.policy import AccessPolicy
from server.api.access import OPEN_PATHS
from server.api.credentials import presented_key
from server.api.errors import error_response
from server.api.tenant import NOBODY, asked_by, caller_of
from server.caller import Caller
from server.errors import HearthError, TooManyFailedKeys, Unauthenticated

logger = logging.getLogger(__name__)


class AuthenticationMiddleware:
    """Denies by default: whatever path is not open needs a key, also those that are no route.

    Goes by `scope["path"]`, as the router does: a URL that is put together again has parts that clients choose.

    Where there are no keys, a request is anybody's, unless an application around this one has said whose it is
    (`set_caller`): tests and `benchmarks/tenant_server.py` do. Nothing in a request can.
    """

    def __init__(self, app: ASGIApp, policy: AccessPolicy, tries: FailedTries) -> None:
        self._app = app
        self._policy = policy
        self._tries = tries

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            caller = self._caller_of_open(scope) if scope["path"] in OPEN_PATHS else self._caller(scope)
        except HearthError as exc:
            await error_response(exc, scope)(scope, receive, send)
            return
        with asked_by(scope, caller):
            await self._app(scope, receive, send)

    def _caller(self, scope: Scope) -> Caller:
        ring = self._policy.ring
        if not ring.has_keys:
            if self._policy.needs_keys:
                raise Unauthenticated("this server needs keys and has none; make one with `hearth key create`")
            return caller_of(scope)  # whatever key was sent: SDKs do not go without one
        try:
            key = presented_key(Headers(scope=scope))
        except Unauthenticated as exc:
            raise self._failed(scope, exc) from exc
        if key is None:
            raise Unauthenticated("no key was sent; send `Authorization: Bearer KEY`, or `x-api-key: KEY`")
        caller = ring.find(key)
        if caller is None:
            raise self._failed(scope, Unauthenticated("nobody has this key, or not any more; ask for another one"))
        return caller

    def _caller_of_open(self, scope: Scope) -> Caller:
        """Whoever has no key, or a wrong one, is served as well, but as nobody."""
        ring = self._policy.ring
        if ring.is_read and not ring.has_keys and not self._policy.needs_keys:
            return caller_of(scope)
        try:
            key = presented_key(Headers(scope=scope))
        except Unauthenticated:
            return NOBODY
        return (ring.find(key) if key is not None else None) or NOBODY

    def _failed(self, scope: Scope, reason: Unauthenticated) -> Unauthenticated:
        """Count a wrong key, and tell what is to be answered."""
        address = scope["client"][0] if scope.get("client") else ""
        wait_s = self._tries.note(address)
        if wait_s == 0:
            return reason
        logger.info("too many wrong keys", extra={"client": address})
        return TooManyFailedKeys(
            f"{address} has sent too many wrong keys; try again in {math.ceil(wait_s)} s",
            retry_after_s=math.ceil(wait_s),
        )
