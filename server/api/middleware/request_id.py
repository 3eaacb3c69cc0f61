"""Give every request an id: the client's, where it is safe to repeat, or ours."""

from __future__ import annotations

import re
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.record import start_record

_SAFE = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_TRACE = re.compile(r"00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
"""W3C's `traceparent`."""


class RequestIdMiddleware:
    """Starts the request's record and echoes `x-request-id` on every answer, as `request-id` too: Anthropic's name."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        offered = headers.get("x-request-id", "")
        record = start_record(scope, offered if _SAFE.fullmatch(offered) else f"req-{uuid.uuid4().hex}")
        if trace := _TRACE.fullmatch(headers.get("traceparent", "")):
            record.trace_id = trace[1]

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = headers["request-id"] = record.request_id
            await send(message)

        await self._app(scope, receive, send_with_id)
