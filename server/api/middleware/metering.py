"""Gives every request a meter, and closes it before the last of the answer goes out: what a client was told is kept."""

from __future__ import annotations

from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.access.request_meter import set_current_meter
from server.access.request_register import RequestRegister
from server.api.middleware.access_log import CLIENT_GONE
from server.api.record import record_of
from server.api.tenant import NOBODY, caller_of
from server.errors import InternalError
from server.telemetry.tracing import Tracing

MAX_SENDER_LENGTH = 128


class MeteringMiddleware:
    """Around everything that answers. `quiet_paths` are not measured.

    Args:
        sender_header: In which clients say for whom they ask.
        tracing: None: no traces are made.
    """

    def __init__(
        self,
        app: ASGIApp,
        register: RequestRegister,
        *,
        sender_header: str,
        tracing: Tracing | None = None,
        quiet_paths: Collection[str] = (),
    ) -> None:
        self._app = app
        self._register = register
        self._sender_header = sender_header
        self._tracing = tracing
        self._quiet_paths = frozenset(quiet_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._quiet_paths:
            await self._app(scope, receive, send)
            return
        record, headers = record_of(scope), Headers(scope=scope)
        meter = record.meter = self._register.open(
            record.request_id,
            scope["path"][:256],
            find_caller=lambda: caller_of(scope, unknown=NOBODY),
            sender=_sender_of(headers.get(self._sender_header)),
        )
        set_current_meter(meter)
        span = self._tracing.begin(scope["method"], headers.get("traceparent")) if self._tracing else None
        status = CLIENT_GONE

        def close(*, http_status: int, is_complete: bool) -> None:
            self._register.close(meter, http_status=http_status, error=record.error, is_complete=is_complete)

        async def send_noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if span is not None:
                    MutableHeaders(scope=message)["traceparent"] = span.traceparent
            elif message["type"] == "http.response.body" and not message.get("more_body", False):
                close(http_status=status, is_complete=True)
            await send(message)

        try:
            await self._app(scope, receive, send_noting)
        except Exception:
            record.error = InternalError.code
            close(http_status=500, is_complete=True)
            raise
        finally:
            close(http_status=CLIENT_GONE, is_complete=False)
            if span is not None:
                span.end(meter, http_status=status, error=record.error)


def _sender_of(said: str | None) -> str | None:
    """What a client writes there goes into reports and logs: printable, and not long."""
    if not said:
        return None
    return "".join(character for character in said if character.isprintable())[:MAX_SENDER_LENGTH] or None
