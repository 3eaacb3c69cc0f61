"""Hold each key to its limits, in front of all endpoints that ask a model, and tell it how it stands."""

from __future__ import annotations

import math

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.access.day_quota import Amount
from server.access.key_limiter import Claim, KeyLimiter, is_limited
from server.api.claims import set_claim
from server.api.errors import error_response
from server.api.model_paths import asks_model
from server.api.record import RequestRecord, record_of
from server.api.tenant import caller_of
from server.errors import LimitExceeded, StorageError


class KeyLimitsMiddleware:
    """Behind whoever finds out who asks, and whoever measures what a request uses."""

    def __init__(self, app: ASGIApp, limiter: KeyLimiter) -> None:
        self._app = app
        self._limiter = limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not is_limited(caller_of(scope).limits):
            await self._app(scope, receive, send)
            return

        async def send_with_standing(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._write_standing(scope, message)
            await send(message)

        claim: Claim | None = None
        try:
            if asks_model(scope):
                claim = await self._limiter.admit(caller_of(scope))
        except (LimitExceeded, StorageError) as exc:
            await error_response(exc, scope)(scope, receive, send_with_standing)
            return
        if claim is None:
            await self._app(scope, receive, send_with_standing)
            return
        set_claim(scope, claim)
        try:
            await self._app(scope, receive, send_with_standing)
        finally:
            record = record_of(scope)
            claim.settle(_used_by(record), num_answer_tokens=record.usage.completion_tokens if record.usage else 0)

    def _write_standing(self, scope: Scope, message: Message) -> None:
        headers = MutableHeaders(scope=message)
        for name, standing in self._limiter.standings(caller_of(scope)).items():
            headers[f"x-ratelimit-limit-{name}"] = str(standing.limit)
            headers[f"x-ratelimit-remaining-{name}"] = str(standing.remaining)
            headers[f"x-ratelimit-reset-{name}"] = _duration(standing.reset_s)


def _used_by(record: RequestRecord) -> Amount | None:
    """What the request's meter has counted, as the ledger keeps it; None: nobody has counted."""
    if record.meter is None:
        return None
    counted = record.meter.record()
    return Amount(counted.num_tokens, counted.cost)


def _duration(seconds: float) -> str:
    """As OpenAI writes it: `120ms`, `6s`, `1m30s`."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, seconds_left = divmod(math.ceil(seconds), 60)
    return f"{minutes}m{seconds_left}s" if minutes else f"{seconds_left}s"
