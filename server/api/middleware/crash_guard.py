"""The last net: an exception that nobody foresaw becomes a 500 without details, and a log entry with all of them."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.errors import error_response


class CrashGuardMiddleware:
    """Innermost of ours, so that even a 500 carries a request id and is in the access log."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_started = False

        async def send_noting(message: Message) -> None:
            nonlocal has_started
            has_started = has_started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, send_noting)
        except Exception as exc:
            response = error_response(exc, scope)  # also logs
            if has_started:
                raise  # half an answer cannot be repaired; the server closes the connection
            await response(scope, receive, send)
