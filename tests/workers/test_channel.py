"""Both ends of a channel in one process; the worker's end has its own thread and ZeroMQ context, as in life."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from queue import Queue

import pytest
import zmq.asyncio

from server.types import Delta
from server.workers.channel import ChildChannel, ParentChannel
from server.workers.messages import Abort, Heartbeat, StepOutput, StreamOutput, ToWorker
from tests.fakes.scripted import until_true


@pytest.fixture
def endpoint(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/s"


@pytest.fixture
async def parent(endpoint: str) -> AsyncIterator[ParentChannel]:
    context = zmq.asyncio.Context()
    channel = ParentChannel(context, endpoint)
    yield channel
    channel.close()
    context.destroy(linger=0)


@pytest.fixture
def received() -> Queue[ToWorker]:
    return Queue()


@pytest.fixture
def child(parent: ParentChannel, endpoint: str, received: Queue[ToWorker]) -> Iterator[ChildChannel]:
    channel = ChildChannel(endpoint, on_message=received.put, heartbeat=lambda: Heartbeat(num_steps=7, busy_s=0))
    channel.start()
    yield channel
    channel.close()


def output(n: int) -> StepOutput:
    return StepOutput([StreamOutput(str(n), Delta("x"))])


async def receive_outputs(parent: ParentChannel, count: int) -> list[str]:
    """Request ids of the next outputs."""
    ids: list[str] = []
    async with asyncio.timeout(5):
        while len(ids) < count:
            message = await parent.receive()
            if isinstance(message, StepOutput):
                ids.append(message.outputs[0].request_id)
    return ids


async def test_messages_of_a_thread_arrive_in_order(parent: ParentChannel, child: ChildChannel) -> None:
    for n in range(3000):
        child.send(output(n))

    assert await receive_outputs(parent, 3000) == [str(n) for n in range(3000)]


async def test_a_worker_that_talks_much_does_not_hold_the_event_loop(
    parent: ParentChannel, child: ChildChannel
) -> None:
    turns = 0

    async def somebody_else() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    other = asyncio.create_task(somebody_else())
    for n in range(1000):
        child.send(output(n))
    await asyncio.to_thread(child.close)  # all is sent, and waits for us
    turns = 0

    await receive_outputs(parent, 1000)

    other.cancel()
    assert turns >= 1000


async def test_heartbeats_come_by_themselves(parent: ParentChannel, child: ChildChannel) -> None:
    async with asyncio.timeout(5):
        beats = [await parent.receive() for _ in range(2)]

    assert beats == [Heartbeat(num_steps=7, busy_s=0)] * 2


async def test_close_sends_what_is_queued(parent: ParentChannel, child: ChildChannel) -> None:
    for n in range(500):
        child.send(output(n))
    closing = asyncio.to_thread(child.close)

    ids, _ = await asyncio.gather(receive_outputs(parent, 500), closing)

    assert ids[-1] == "499"


async def test_the_worker_hears_the_parent_in_order(
    parent: ParentChannel, child: ChildChannel, received: Queue[ToWorker]
) -> None:
    async with asyncio.timeout(5):
        await parent.receive()  # a heartbeat: the worker is connected

    for n in range(500):
        assert parent.send(Abort(str(n)))

    assert [await asyncio.to_thread(received.get, timeout=5) for _ in range(500)] == [Abort(str(n)) for n in range(500)]


async def test_sending_to_nobody_does_not_wait(parent: ParentChannel) -> None:
    assert not parent.send(Abort("a"))


async def test_sending_to_a_worker_that_has_gone_does_not_wait(parent: ParentChannel, child: ChildChannel) -> None:
    async with asyncio.timeout(5):
        await parent.receive()
    await asyncio.to_thread(child.close)

    await until_true(lambda: not parent.send(Abort("a")))
