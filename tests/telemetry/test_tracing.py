"""Traces by OpenTelemetry, where it is installed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from server.access.metered_model import MeteredModel
from server.api.application import build_api
from server.config.schema import ModelConfig
from server.config.server_section import Limits
from server.errors import ConfigError, WorkerCrashed
from server.models.registry import ModelEntry, ModelRegistry
from server.services import build_services
from server.telemetry.metrics import Metrics
from server.telemetry.tracing import Tracing, open_tracing
from server.types import Delta, Started
from tests.fakes.models import FakeChatModel, Step, saying

CHAT = ModelConfig(id="talker", kind="chat", backend="llama_cpp", source="file:x.gguf")
HELLO = {"model": "talker", "messages": [{"role": "user", "content": "the secret word"}]}
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracing(exporter: InMemorySpanExporter) -> Iterator[Tracing]:
    tracing = Tracing(exporter, version="1.2.3")
    yield tracing
    tracing.close()


async def ask(tracing: Tracing, steps: tuple[Step, ...], **headers: str) -> httpx.Response:
    """Ask a model that goes through these steps; its spans are exported when this returns."""
    metrics, model = Metrics(), FakeChatModel(steps=steps)
    metered: Any = MeteredModel(model, CHAT, metrics.of_model(CHAT.id))  # type: ignore[arg-type]  # it chats only
    services = build_services(ModelRegistry([ModelEntry(CHAT, metered)]), Limits(), started_at_s=1, version="1.2.3")
    transport = httpx.ASGITransport(build_api(services, Limits(), tracing=tracing))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        response = await client.post("/v1/chat/completions", json=HELLO, headers=headers)
    tracing.close()
    return response


async def test_a_request_is_a_span_with_its_model_calls_below_it(
    tracing: Tracing, exporter: InMemorySpanExporter
) -> None:
    await ask(tracing, saying("Hello", " there"))

    call, request = exporter.get_finished_spans()
    assert call.name == "chat talker"
    assert call.parent is not None and call.parent.span_id == request.context.span_id
    assert dict(call.attributes or {}) | {"gen_ai.response.time_to_first_chunk": 0} == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "hearth",
        "gen_ai.request.model": "talker",
        "gen_ai.response.model": "talker",
        "gen_ai.usage.input_tokens": 5,
        "gen_ai.usage.output_tokens": 2,
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.response.time_to_first_chunk": 0,
    }
    assert (request.attributes or {})["http.response.status_code"] == 200


async def test_the_clients_trace_goes_on_and_the_answer_names_it(
    tracing: Tracing, exporter: InMemorySpanExporter
) -> None:
    response = await ask(tracing, saying("Hello"), traceparent=TRACEPARENT)

    *_, request = exporter.get_finished_spans()
    assert f"{request.context.trace_id:032x}" == TRACE_ID
    assert response.headers["traceparent"] == f"00-{TRACE_ID}-{request.context.span_id:016x}-01"


async def test_an_error_is_in_the_trace(tracing: Tracing, exporter: InMemorySpanExporter) -> None:
    await ask(tracing, (Started(5), Delta("half"), WorkerCrashed("it died")))

    call, request = exporter.get_finished_spans()
    assert (call.attributes or {})["error.type"] == (request.attributes or {})["error.type"] == "worker_crashed"


async def test_nothing_that_was_said_is_in_the_trace(tracing: Tracing, exporter: InMemorySpanExporter) -> None:
    await ask(tracing, saying("the secret answer"))

    assert "secret" not in "".join(span.to_json() for span in exporter.get_finished_spans())


def test_without_the_package_the_setting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)

    with pytest.raises(ConfigError, match=r"hearth\[otel\]"):
        open_tracing("http://localhost:4318/v1/traces", version="1")
