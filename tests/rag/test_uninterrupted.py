from __future__ import annotations

import asyncio

import pytest

from server.rag.uninterrupted import uninterrupted


async def test_it_gives_what_the_work_gives() -> None:
    async def work() -> int:
        return 3

    assert await uninterrupted(work()) == 3


async def test_it_raises_what_the_work_raises() -> None:
    async def work() -> int:
        raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        await uninterrupted(work())


@pytest.mark.parametrize("num_cancellations", [1, 2])
@pytest.mark.parametrize("fails", [False, True])
async def test_a_cancelled_caller_waits_for_the_work_and_is_cancelled_then(num_cancellations: int, fails: bool) -> None:
    gate, has_begun, has_ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        has_begun.set()
        await gate.wait()
        has_ended.set()
        if fails:
            raise ValueError("nobody hears of it")

    caller = asyncio.create_task(uninterrupted(work()))
    await has_begun.wait()
    for _ in range(num_cancellations):
        caller.cancel()
        await asyncio.sleep(0)
    assert not caller.done()

    gate.set()
    await asyncio.wait((caller,))
    assert has_ended.is_set() and caller.cancelled()
