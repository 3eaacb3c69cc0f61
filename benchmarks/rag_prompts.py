"""The prompts that grounded chats give to their model, noted in an app in this process, with real encoders."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import httpx

from server.app import build_app
from server.cli.settings import cache_dir
from server.config.load import load_config
from server.loadgen.answer import Body
from server.models.weights import WeightsStore
from server.types import ChatPrompt, Finished, GenerateRequest, Started, Usage
from server.workers.client import WorkerClient

TIMEOUT_S = 300.0

Messages = list[dict[str, str]]


def noted_prompts(config: Path, bodies: Sequence[Body]) -> list[Messages]:
    """Ask chats one after the other; return the messages that the model was given for each, sources and all."""
    return asyncio.run(_ask_all(config, bodies))


async def _ask_all(config: Path, bodies: Sequence[Body]) -> list[Messages]:
    settings = load_config(config, environ={}).config
    app = build_app(settings, WeightsStore(settings.server.weights_dir, cache_dir()))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=TIMEOUT_S) as http,
    ):
        return [await _ask(http, body) for body in bodies]


async def _ask(http: httpx.AsyncClient, body: Body) -> Messages:
    with _noting() as requests:
        answer = await http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    assert requests, f"no source was found for {body['messages']}"
    [request] = requests
    prompt = request.prompt
    assert isinstance(prompt, ChatPrompt)
    return [{"role": message.role, "content": message.content} for message in prompt.messages]


@contextmanager
def _noting() -> Iterator[list[GenerateRequest]]:
    """Take what the model is asked to generate, and answer nothing."""
    requests: list[GenerateRequest] = []

    async def note(_client: WorkerClient, request: GenerateRequest) -> AsyncGenerator[Started | Finished, None]:
        requests.append(request)
        yield Started(0)
        yield Finished("stop", Usage(prompt_tokens=0))

    with mock.patch.object(WorkerClient, "generate", note):
        yield requests
