"""A server that is about to stop: readiness says so, connections end with their answers, new requests get 503."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.errors import error_response
from server.api.json_response import JsonResponse
from server.errors import ModelUnavailable


@dataclass
class Drain:
    """How far the server is with stopping; set by whoever stops it.

    Attributes:
        has_begun: Load balancers shall send nothing more; what comes is served.
        is_refusing: What comes is refused. What came before goes on.
    """

    has_begun: bool = False
    is_refusing: bool = False


class DrainMiddleware:
    """Args:
    ready_paths: Say 503 from the beginning of the drain.
    open_paths: Are served to the end.
    """

    def __init__(
        self, app: ASGIApp, drain: Drain, *, ready_paths: Collection[str] = (), open_paths: Collection[str] = ()
    ) -> None:
        self._app = app
        self._drain = drain
        self._ready_paths = frozenset(ready_paths)
        self._open_paths = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self._drain.has_begun:
            await self._app(scope, receive, send)
            return

        async def send_last(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["connection"] = "close"
            await send(message)

        await self._app_for(scope)(scope, receive, send_last)

    def _app_for(self, scope: Scope) -> ASGIApp:
        if scope["path"] in self._ready_paths:
            return _not_ready()
        if self._drain.is_refusing and scope["path"] not in self._open_paths:
            return error_response(ModelUnavailable("the server is stopping; try again in a moment"), scope)
        return self._app


def _not_ready() -> Response:
    return JsonResponse({"status": "draining", "models": {}}, status_code=503, headers={"retry-after": "5"})
