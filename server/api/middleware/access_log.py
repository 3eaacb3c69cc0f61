"""One line in the log for each request, and what it took on each answer: `openai-processing-ms`, `server-timing`."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from urllib.parse import quote

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.access.request_meter import RequestMeter
from server.api.record import RequestRecord, record_of

logger = logging.getLogger(__name__)

CLIENT_GONE = 499
"""nginx's status for a client that left before it got an answer; only ever logged."""


class AccessLogMiddleware:
    """Writes the canonical line when the request has ended, streams included. `quiet_paths` are not logged."""

    def __init__(self, app: ASGIApp, quiet_paths: Collection[str] = ()) -> None:
        self._app = app
        self._quiet_paths = frozenset(quiet_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_s = time.perf_counter()
        status = CLIENT_GONE
        is_complete = False

        async def send_timed(message: Message) -> None:
            nonlocal status, is_complete
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["openai-processing-ms"] = str(_ms_since(started_s))
                if server_timing := record_of(scope).server_timing:
                    headers["server-timing"] = server_timing
            elif message["type"] == "http.response.body":
                is_complete = not message.get("more_body", False)
            await send(message)

        try:
            await self._app(scope, receive, send_timed)
        finally:
            if scope["path"] not in self._quiet_paths:
                _write_line(scope, status if is_complete else CLIENT_GONE, _ms_since(started_s))


def _write_line(scope: Scope, status: int, duration_ms: int) -> None:
    record = record_of(scope)
    fields = {
        "request_id": record.request_id,
        "method": scope["method"],
        "path": quote(scope["path"][:256], safe="/"),  # a path may hold line breaks and control characters
        "status": status,
        "duration_ms": duration_ms,
        **_facts(record),
    }
    someone_got_nothing = status >= 500 or (status == 200 and record.error is not None)
    logger.log(logging.ERROR if someone_got_nothing else logging.INFO, "request", extra=fields)


def _facts(record: RequestRecord) -> dict[str, object]:
    usage = record.usage
    facts = {
        "model": record.model[:128] if record.model else None,
        "generation_id": record.generation_id,
        "trace_id": record.trace_id,
        **(_measured(record.meter) if record.meter else {}),
        "prompt_tokens": usage.prompt_tokens if usage else None,
        "cached_tokens": usage.cached_tokens if usage else None,
        "completion_tokens": usage.completion_tokens if usage else None,
        "finish_reason": record.finish_reason,
        "num_sources": record.num_sources,
        "num_removed_citations": record.num_removed_citations,
        "error": record.error,
    }
    return {name: value for name, value in facts.items() if value is not None}


def _measured(meter: RequestMeter) -> dict[str, object]:
    facts = {"usage_id": meter.id, "sender": meter.sender} if meter.calls else {}
    times = {"queue_ms": meter.queue_ms, "ttft_ms": meter.ttft_ms, "itl_ms": meter.itl_ms}
    return {
        "tenant": meter.caller.tenant or None,  # whoever was turned away at the door is nobody
        "key_id": meter.caller.key_id,
        **facts,
        **{name: None if value is None else round(value, 1) for name, value in times.items()},
    }


def _ms_since(started_s: float) -> int:
    return round((time.perf_counter() - started_s) * 1000)
