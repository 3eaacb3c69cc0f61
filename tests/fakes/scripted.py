"""Scripted chat models in real worker processes: what a test needs to start and to ask them."""

from __future__ import annotations

import asyncio
import itertools
import os
import select
from collections.abc import Callable

from server.config.schema import ModelConfig
from server.config.script_section import ScriptRule
from server.types import ChatMessage, ChatPrompt, Delta, GenerateRequest, ModelState, SamplingParams
from server.workers.client import WorkerClient
from server.workers.keeper import SpecFactory
from server.workers.messages import WorkerSpec

_ids = itertools.count()


def scripted(model_id: str = "actor", *rules: ScriptRule) -> ModelConfig:
    """A model that says "one two three", or what the rules say."""
    return ModelConfig(id=model_id, kind="chat", backend="script", script=rules or (ScriptRule(text="one two three"),))


def spec_factory(config: ModelConfig, *, weights_path: str | None = None) -> SpecFactory:
    def make_spec(endpoint: str) -> WorkerSpec:
        return WorkerSpec(
            model_json=config.model_dump_json(), weights_path=weights_path, endpoint=endpoint, num_threads=1
        )

    return make_spec


def request(text: str = "hi") -> GenerateRequest:
    prompt = ChatPrompt((ChatMessage(role="user", content=text),))
    return GenerateRequest(request_id=f"r{next(_ids)}", prompt=prompt, sampling=SamplingParams())


async def answer(client: WorkerClient, asked: GenerateRequest | None = None) -> str:
    return "".join([event.text async for event in client.generate(asked or request()) if isinstance(event, Delta)])


async def until(state: ModelState, client: WorkerClient, *, timeout_s: float = 10) -> None:
    await until_true(lambda: client.state == state, timeout_s=timeout_s)


async def until_true(condition: Callable[[], bool], *, timeout_s: float = 10) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  # states of other processes have no event to wait for
            await asyncio.sleep(0.005)


def ends_within(pid: int, timeout_s: float) -> bool:
    """Wait for the end of any process, one's child or not; true if it is over (a zombie is)."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], timeout_s)[0])
    finally:
        os.close(handle)
