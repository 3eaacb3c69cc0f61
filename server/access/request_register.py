"""The requests that are live, and the last that were: what they do, for whom, and how to end one.

Here a request's measurements go where they belong when it is over: to the ledger, the metrics and the trace.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from server.access.request_meter import RequestMeter, Stage
from server.access.usage_ledger import UsageLedger
from server.access.usage_record import CLIENT_GONE, COMPLETED
from server.caller import Caller
from server.errors import Conflict, ObjectNotFound, WorkerCrashed
from server.telemetry.metrics import Metrics, ModelMetrics

MAX_RECENT = 500
"""Requests that are over and still told of."""

TURNED_AWAY = (429, 503, 529)
"""The last one says 503 on Anthropic's paths."""

MAX_TOLD = 20
"""Requests that an error names."""


class RequestView(msgspec.Struct, frozen=True, kw_only=True):
    """One request as operators see it.

    Attributes:
        id: To cancel it by; ours, as `request_id` may be the client's.
        model: That answers, or was asked first; None: none was asked yet.
        stage: Where it is, or was when it ended.
        status: How it ended; None while it runs.
        age_ms: Since it came; of one that is over, how long it took.
        at_ms: When it came, Unix milliseconds.
    """

    id: str
    request_id: str
    tenant: str
    key_id: str | None
    sender: str | None
    path: str
    model: str | None
    stage: Stage
    status: str | None
    at_ms: int
    age_ms: float
    queue_ms: float | None
    ttft_ms: float | None
    prompt_tokens: int
    completion_tokens: int


class RequestRegister:
    """Opens and closes the meters of requests. On the event loop only."""

    def __init__(self, ledger: UsageLedger, metrics: Metrics, *, max_recent: int = MAX_RECENT) -> None:
        self._ledger = ledger
        self._metrics = metrics
        self._of_model: dict[str, ModelMetrics] = {}
        self._live: dict[str, RequestMeter] = {}
        self._recent: deque[RequestView] = deque(maxlen=max_recent)

    @property
    def num_live(self) -> int:
        return len(self._live)

    def open(
        self, request_id: str, path: str, *, find_caller: Callable[[], Caller] = Caller, sender: str | None = None
    ) -> RequestMeter:
        """A request has come; `close` has to follow."""
        meter = RequestMeter(request_id, path, find_caller=find_caller, sender=sender, on_progress=self._ledger.note)
        self._live[meter.id] = meter
        return meter

    def close(self, meter: RequestMeter, *, http_status: int, error: str | None, is_complete: bool) -> None:
        """A request is over; nothing happens if it was closed before. Before the client can have read its last byte.

        Args:
            error: Code of the error that the client got.
            is_complete: The client has not left before the end.
        """
        if meter.is_closed:
            return
        meter.close()
        del self._live[meter.id]
        status = (error or COMPLETED) if is_complete else CLIENT_GONE
        self._metrics.http_responses.labels(str(http_status)).inc()
        is_refused = http_status in TURNED_AWAY and error not in (None, WorkerCrashed.code)
        if is_refused:
            self._metrics.rejections.labels(str(error)).inc()
        call = meter.answering
        if call is None:
            return
        self._ledger.settle(meter.record(status), is_refused=is_refused)
        self._metrics.requests.labels(call.model_id, status).inc()
        self._metrics_of(call.model_id).e2e.observe(time.monotonic() - meter.started_at)
        self._recent.append(_view_of(meter, status))

    def live(self, *, besides: RequestMeter | None = None) -> Sequence[RequestView]:
        """Requests that run, oldest first, without the one that asks."""
        return [_view_of(meter, None) for meter in self._live.values() if meter is not besides]

    def recent(self) -> Sequence[RequestView]:
        """Requests that asked a model and are over, newest first."""
        return list(reversed(self._recent))

    def cancel(self, name: str) -> int:
        """End the live request of this id of ours, else those to which one tenant has given it; return how many.

        Raises:
            ObjectNotFound: None is live.
            Conflict: Several tenants have given this id to theirs.
        """
        mine = self._live.get(name)
        found = [mine] if mine else [meter for meter in self._live.values() if name == meter.request_id]
        if not found:
            raise ObjectNotFound(f"no live request has id {name[:128]!r}; it may be over")
        if len({meter.caller.tenant for meter in found}) > 1:
            which = ", ".join(f"{meter.id} ({meter.caller.tenant})" for meter in found[:MAX_TOLD])
            raise Conflict(f"requests of several tenants have id {name[:128]!r}: {which}; cancel by those ids")
        for meter in found:
            meter.cancel()
        return len(found)

    def _metrics_of(self, model_id: str) -> ModelMetrics:
        if model_id not in self._of_model:
            self._of_model[model_id] = self._metrics.of_model(model_id)
        return self._of_model[model_id]


def _view_of(meter: RequestMeter, status: str | None) -> RequestView:
    call = meter.answering
    return RequestView(
        id=meter.id,
        request_id=meter.request_id,
        tenant=meter.caller.tenant,
        key_id=meter.caller.key_id,
        sender=meter.sender,
        path=meter.path,
        model=call.model_id if call else None,
        stage=meter.stage,
        status=status,
        at_ms=round(meter.at * 1000),
        age_ms=round((time.monotonic() - meter.started_at) * 1000, 1),
        queue_ms=meter.queue_ms,
        ttft_ms=meter.ttft_ms,
        prompt_tokens=meter.num_prompt_tokens,
        completion_tokens=meter.num_completion_tokens,
    )
