"""Several generations as one stream."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from server.errors import WorkerCrashed
from server.services.merge import merge
from server.types import Delta, GenerateRequest, SamplingParams, Started, TextPrompt
from tests.fakes.models import FakeChatModel, Step, saying

REQUEST = GenerateRequest(request_id="r", prompt=TextPrompt("x"), sampling=SamplingParams())


def models(*scripts: tuple[Step, ...]) -> list[FakeChatModel]:
    return [FakeChatModel(steps=steps) for steps in scripts]


async def test_every_start_comes_before_everything_else() -> None:
    late = asyncio.Event()
    quick, slow = models(saying("a", "b"), (late, *saying("c")))
    merged = merge([quick.generate(REQUEST), slow.generate(REQUEST)])
    async with aclosing(merged):
        first = await anext(merged)
        late.set()
        events = [first, *[event async for event in merged]]

    assert [type(event) for _, event in events[:2]] == [Started, Started]
    assert [event for index, event in events if index == 0] == list(saying("a", "b"))
    assert [event for index, event in events if index == 1] == list(saying("c"))


async def test_an_error_closes_the_others() -> None:
    stuck, broken = models((Started(1), asyncio.Event()), (Started(1), WorkerCrashed("the worker has died")))

    with pytest.raises(WorkerCrashed):
        async for _ in merge([stuck.generate(REQUEST), broken.generate(REQUEST)]):
            pass

    assert stuck.aborted == ["r"]


async def test_closing_closes_every_stream() -> None:
    endless = models((Started(1), *[Delta("x")] * 100, asyncio.Event()), (Started(1), asyncio.Event()))
    merged = merge([model.generate(REQUEST) for model in endless])
    await anext(merged)

    await merged.aclose()

    assert [model.aborted for model in endless] == [["r"], ["r"]]
