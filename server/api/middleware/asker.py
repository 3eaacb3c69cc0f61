"""Tell all that works for a request whose it is, which share its tenant gets, and until when it is waited for."""

from __future__ import annotations

import math
import re
import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from server.api.model_paths import asks_model
from server.api.schemas.sampling import MAX_TIMEOUT_S
from server.api.tenant import caller_of
from server.asker import Asker, asking
from server.errors import InvalidRequest

TIMEOUT_HEADER = "x-request-timeout"

_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?(ms|s)?", re.ASCII)


class AskerMiddleware:
    """Behind whoever finds out who asks. Only of what asks a model: other work is not to be given up half done."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not asks_model(scope):
            await self._app(scope, receive, send)
            return
        caller, timeout_s = caller_of(scope), _timeout_s(scope)
        asker = Asker(tenant=caller.tenant, weight=caller.limits.weight, deadline_at=time.monotonic() + timeout_s)
        with asking(asker):
            await self._app(scope, receive, send)


def _timeout_s(scope: Scope) -> float:
    """What the header allows; infinity without one. Raises InvalidRequest."""
    text = Headers(scope=scope).get(TIMEOUT_HEADER)
    if text is None:
        return math.inf
    if found := _DURATION.fullmatch(text.strip()):
        timeout_s = float(found[1]) / (1000 if found[2] == "ms" else 1)
        if 0 < timeout_s <= MAX_TIMEOUT_S:
            return timeout_s
    raise InvalidRequest(
        f"{TIMEOUT_HEADER} is {text[:40]!r}; expected seconds, more than 0 and at most {MAX_TIMEOUT_S}, or "
        "milliseconds as in '1500ms'",
        param=TIMEOUT_HEADER,
    )
