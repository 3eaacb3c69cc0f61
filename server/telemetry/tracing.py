"""Traces by OpenTelemetry, with its conventions for generative AI. Imported only where an endpoint is configured.

A request is a span, and each thing that it asks of a model one below it. Nothing of a prompt or an answer is in them.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from server.errors import ConfigError
from server.types import ModelKind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

MAX_CALLS = 100
"""Of one request, that have a span of their own."""

EXPORT_S = 5.0
"""For a batch of spans, tries included: so long a server that stops may wait for whoever should take them."""

_OPERATIONS: dict[ModelKind, str] = {"chat": "chat", "embedding": "embeddings", "rerank": "rerank"}


class TracedCall(Protocol):
    """What a span tells of something that was asked of a model. Times are of `time.monotonic()`."""

    model_id: str
    kind: ModelKind
    begun_at: float
    ended_at: float | None
    first_token_at: float | None
    prompt_tokens: int
    num_tokens: int
    finish_reason: str | None


class TracedRequest(Protocol):
    """What a span tells of a request."""

    id: str
    request_id: str
    path: str

    @property
    def calls(self) -> Sequence[TracedCall]: ...


class Tracing:
    """Makes spans, and sends them in the background."""

    def __init__(self, exporter: SpanExporter, *, version: str) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        resource = Resource.create({"service.name": "hearth", "service.version": version})
        self._provider = TracerProvider(resource=resource)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("hearth", version)

    def begin(self, method: str, traceparent: str | None) -> RequestSpan:
        """A request has come, which may belong to a trace already."""
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier = {"traceparent": traceparent} if traceparent else {}
        context = TraceContextTextMapPropagator().extract(carrier)
        span = self._tracer.start_span(method, context=context, kind=SpanKind.SERVER)
        span.set_attribute("http.request.method", method)
        return RequestSpan(self._tracer, span)

    def close(self) -> None:
        """Send what waits to be sent. Blocks for seconds if nobody takes it."""
        self._provider.shutdown()


class RequestSpan:
    """The span of a request that goes on."""

    def __init__(self, tracer: object, span: Span) -> None:
        self._tracer = tracer
        self._span = span
        self._offset_s = time.time() - time.monotonic()

    @property
    def traceparent(self) -> str:
        """What the client may look the trace up by."""
        context = self._span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"

    def end(self, request: TracedRequest, *, http_status: int, error: str | None) -> None:
        """The request is over."""
        from opentelemetry.trace import Status, StatusCode

        span = self._span
        span.set_attributes(
            {
                "url.path": request.path,
                "http.response.status_code": http_status,
                "hearth.request_id": request.request_id,
                "hearth.usage_id": request.id,
            }
        )
        if error is not None:
            span.set_attribute("error.type", error)
            span.set_status(Status(StatusCode.ERROR, error))
        for call in request.calls[:MAX_CALLS]:
            self._tell_call(call, error)
        span.end()

    def _tell_call(self, call: TracedCall, error: str | None) -> None:
        from opentelemetry.trace import SpanKind, Tracer, set_span_in_context

        assert isinstance(self._tracer, Tracer)
        operation = _OPERATIONS[call.kind]
        child = self._tracer.start_span(
            f"{operation} {call.model_id}",
            context=set_span_in_context(self._span),
            kind=SpanKind.INTERNAL,
            start_time=self._ns(call.begun_at),
            attributes=_attributes(operation, call),
        )
        if call.first_token_at is not None:
            child.add_event("first token", timestamp=self._ns(call.first_token_at))
        if error is not None and call.kind == "chat" and call.finish_reason is None:
            child.set_attribute("error.type", error)
        child.end(end_time=self._ns(call.ended_at or time.monotonic()))

    def _ns(self, at: float) -> int:
        return round((at + self._offset_s) * 1e9)


def _attributes(operation: str, call: TracedCall) -> Mapping[str, str | int | float | Sequence[str]]:
    attributes: dict[str, str | int | float | Sequence[str]] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "hearth",
        "gen_ai.request.model": call.model_id,
        "gen_ai.response.model": call.model_id,
        "gen_ai.usage.input_tokens": call.prompt_tokens,
    }
    if call.kind == "chat":
        attributes["gen_ai.usage.output_tokens"] = call.num_tokens
        if call.finish_reason is not None:
            attributes["gen_ai.response.finish_reasons"] = [call.finish_reason]
        if call.first_token_at is not None:
            attributes["gen_ai.response.time_to_first_chunk"] = call.first_token_at - call.begun_at
    return attributes


def open_tracing(endpoint: str, *, version: str) -> Tracing:
    """Send traces to an OTLP endpoint, over HTTP.

    Raises:
        ConfigError: OpenTelemetry is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as exc:
        raise ConfigError("server.otlp_endpoint needs OpenTelemetry; `pip install hearth[otel]`, or unset it") from exc
    return Tracing(OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_S), version=version)
