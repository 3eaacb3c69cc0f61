"""No prompt, no document, no key gets into the log, unless the configuration says so."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from server.access.metered_model import MeteredModel
from server.errors import WorkerCrashed
from server.telemetry.logs import configure_logs
from server.types import Delta, Started
from tests.api.conftest import CHAT, Stack
from tests.fakes.models import saying

CANARY = "canary-7f3a"

REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"model": "talker", "messages": [{"role": "user", "content": CANARY}]}),
    ("/v1/chat/completions", {"model": "talker", "messages": [{"role": CANARY, "content": CANARY}]}),
    ("/v1/chat/completions", {"model": "actor", "stream": True, "messages": [{"role": "user", "content": CANARY}]}),
    ("/v1/completions", {"model": "talker", "prompt": CANARY, "user": CANARY}),
    ("/v1/messages", {"model": "talker", "max_tokens": 5, "messages": [{"role": "user", "content": CANARY}]}),
    ("/v1/responses", {"model": "talker", "input": CANARY, "store": False}),
    ("/v1/embeddings", {"model": "embedder", "input": [CANARY, CANARY * 100]}),
    ("/v1/rerank", {"model": "ranker", "query": CANARY, "documents": [CANARY]}),
    ("/v1/tokenize", {"model": "talker", "prompt": CANARY}),
    ("/v1/vector_stores/vs_1/search", {"query": CANARY}),
]

HEADERS = {"authorization": f"Bearer {CANARY}", "x-api-key": CANARY, "cookie": CANARY}


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """The set-up is the process's: give pytest its own back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize("outcome", ["an answer", "a crash", "a bug"])
async def test_nothing_that_clients_send_is_logged(
    stack: Stack, capsys: pytest.CaptureFixture[str], outcome: str
) -> None:
    configure_logs("debug", "json")
    stack.chat.steps = {
        "an answer": saying(CANARY),
        "a crash": (Started(5), Delta(CANARY), WorkerCrashed("it died")),
        "a bug": (Started(5), Delta(CANARY), RuntimeError("as the test asked")),
    }[outcome]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(stack.app()), base_url="http://test") as client:
        for path, body in REQUESTS:
            await client.post(path, json=body, headers=HEADERS)
        await client.post("/v1/files", files={"file": ("notes.txt", CANARY)}, data={"purpose": "assistants"})

    logged = capsys.readouterr().err
    assert logged.count('"event": "request"') == len(REQUESTS) + 1
    assert CANARY not in logged


async def test_conversations_are_logged_where_they_shall_be(
    stack: Stack, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    configure_logs("debug", "json")
    traced = MeteredModel(stack.chat, CHAT, stack.metrics.of_model("talker"), traces_prompts=True)  # type: ignore[arg-type]  # it chats only
    stack.chat.steps = saying("the answer")
    monkeypatch.setattr(stack, "chat", traced)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(stack.app()), base_url="http://test") as client:
        await client.post(*REQUESTS[0][:1], json=REQUESTS[0][1], headers={"authorization": "Bearer secret-key"})

    logged = capsys.readouterr().err
    assert CANARY in logged
    assert "the answer" in logged
    assert "secret-key" not in logged
