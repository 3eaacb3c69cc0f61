"""Hold each key to its limits, in front of all endpoints that ask a model, and tell it how it stands."""

from __future__ import annotations

import math
from collections.abc import Callable

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.access.day_quota import NOTHING, Amount
from server.access.key_limiter import Claim, KeyLimiter, is_limited
from server.api.claims import set_claim
from server.api.errors import error_response
from server.api.model_paths import asks_model
from server.api.record import record_of
from server.api.tenant import caller_of
from server.errors import LimitExceeded, StorageError

UsedBy = Callable[[Scope], Amount | None]
"""What a request that has just ended has used, whatever its end; None: that cannot be told."""


def used_by_record(scope: Scope) -> Amount | None:
    """What the request's meter has counted, as the ledger keeps it; without one its usage, at no cost."""
    record = record_of(scope)
    if record.meter is not None:
        counted = record.meter.record()
        return Amount(counted.num_tokens, counted.cost)
    return Amount(record.usage.prompt_tokens + record.usage.completion_tokens) if record.usage else None


class KeyLimitsMiddleware:
    """Behind whoever finds out who asks."""

    def __init__(self, app: ASGIApp, limiter: KeyLimiter, used_by: UsedBy = used_by_record) -> None:
        self._app = app
        self._limiter = limiter
        self._used_by = used_by

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not is_limited(caller_of(scope).limits):
            await self._app(scope, receive, send)
            return
        status: int | None = None

        async def send_noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._write_standing(scope, message)
            await send(message)

        claim: Claim | None = None
        try:
            if asks_model(scope):
                claim = await self._limiter.admit(caller_of(scope))
        except (LimitExceeded, StorageError) as exc:
            await error_response(exc, scope)(scope, receive, send_noting)
            return
        if claim is None:
            await self._app(scope, receive, send_noting)
            return
        set_claim(scope, claim)
        try:
            await self._app(scope, receive, send_noting)
        finally:
            self._settle(scope, claim, status)

    def _settle(self, scope: Scope, claim: Claim, status: int | None) -> None:
        used, usage = self._used_by(scope), record_of(scope).usage
        if used is None and status is not None and status >= 400:
            used = NOTHING  # refused, or failed before the first word
        claim.settle(used, num_answer_tokens=usage.completion_tokens if usage else 0)

    def _write_standing(self, scope: Scope, message: Message) -> None:
        headers = MutableHeaders(scope=message)
        for name, standing in self._limiter.standings(caller_of(scope)).items():
            headers[f"x-ratelimit-limit-{name}"] = str(standing.limit)
            headers[f"x-ratelimit-remaining-{name}"] = str(standing.remaining)
            headers[f"x-ratelimit-reset-{name}"] = _duration(standing.reset_s)


def _duration(seconds: float) -> str:
    """As OpenAI writes it: `120ms`, `6s`, `1m30s`."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, seconds_left = divmod(math.ceil(seconds), 60)
    return f"{minutes}m{seconds_left}s" if minutes else f"{seconds_left}s"
