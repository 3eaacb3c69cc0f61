"""An application whose requests all come from one caller, as if their key had been looked at."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from server.api.tenant import set_caller
from server.caller import Caller


class CalledBy:
    def __init__(self, app: ASGIApp, caller: Caller) -> None:
        self._app = app
        self._caller = caller

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        set_caller(scope, self._caller)
        await self._app(scope, receive, send)
