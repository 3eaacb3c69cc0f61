"""Both ends of a channel in one process; the worker's end has its own thread and ZeroMQ context, as in life."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from queue import Queue

import msgspec
import pytest
import zmq

from server.types import Delta
from server.workers.channel import ChildChannel, ParentChannel
from server.workers.messages import Abort, FromWorker, Heartbeat, StepOutput, StreamOutput, ToWorker
from tests.fakes.scripted import until_true


@pytest.fixture
def endpoint(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/s"


@pytest.fixture
async def parent(endpoint: str) -> AsyncIterator[ParentChannel]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    channel = ParentChannel(context, endpoint)
    yield channel
    channel.close()
    context.destroy(linger=0)


@pytest.fixture
async def heard(parent: ParentChannel) -> asyncio.Queue[FromWorker]:
    """What the worker says."""
    messages: asyncio.Queue[FromWorker] = asyncio.Queue()
    parent.listen(messages.put_nowait, pytest.fail)
    return messages


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


async def receive_outputs(heard: asyncio.Queue[FromWorker], count: int) -> list[str]:
    """Request ids of the next outputs."""
    ids: list[str] = []
    async with asyncio.timeout(5):
        while len(ids) < count:
            message = await heard.get()
            if isinstance(message, StepOutput):
                ids.append(message.outputs[0].request_id)
    return ids


async def next_of(heard: asyncio.Queue[FromWorker]) -> FromWorker:
    return await asyncio.wait_for(heard.get(), 5)


async def test_messages_of_a_thread_arrive_in_order(heard: asyncio.Queue[FromWorker], child: ChildChannel) -> None:
    for n in range(3000):
        child.send(output(n))

    assert await receive_outputs(heard, 3000) == [str(n) for n in range(3000)]


async def test_any_thread_may_send(heard: asyncio.Queue[FromWorker], child: ChildChannel) -> None:
    def send(start: int) -> None:
        for n in range(start, start + 500):
            child.send(output(n))

    await asyncio.gather(*(asyncio.to_thread(send, start) for start in (0, 500, 1000)))

    ids = [int(each) for each in await receive_outputs(heard, 1500)]
    assert sorted(ids) == list(range(1500))
    for start in (0, 500, 1000):
        assert [n for n in ids if start <= n < start + 500] == list(range(start, start + 500))


async def test_a_worker_that_talks_much_does_not_hold_the_event_loop(
    heard: asyncio.Queue[FromWorker], child: ChildChannel
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

    await receive_outputs(heard, 1000)

    other.cancel()
    assert turns >= 1000 / 4


async def test_a_message_that_cannot_be_read_is_told(parent: ParentChannel, child: ChildChannel) -> None:
    told: asyncio.Queue[Exception] = asyncio.Queue()
    parent.listen(lambda _: None, told.put_nowait)

    child._to_parent.send(b"\xc1 is no msgpack")

    assert isinstance(await asyncio.wait_for(told.get(), 5), msgspec.DecodeError)


async def test_heartbeats_come_by_themselves(heard: asyncio.Queue[FromWorker], child: ChildChannel) -> None:
    assert [await next_of(heard), await next_of(heard)] == [Heartbeat(num_steps=7, busy_s=0)] * 2


async def test_close_sends_what_is_queued(heard: asyncio.Queue[FromWorker], child: ChildChannel) -> None:
    for n in range(500):
        child.send(output(n))
    closing = asyncio.to_thread(child.close)

    ids, _ = await asyncio.gather(receive_outputs(heard, 500), closing)

    assert ids[-1] == "499"


async def test_sending_after_the_end_is_lost_and_no_error(child: ChildChannel) -> None:
    await asyncio.to_thread(child.close)

    child.send(output(0))


async def test_the_worker_hears_the_parent_in_order(
    parent: ParentChannel, heard: asyncio.Queue[FromWorker], child: ChildChannel, received: Queue[ToWorker]
) -> None:
    await next_of(heard)  # a heartbeat: the worker is connected

    for n in range(500):
        assert parent.send(Abort(str(n)))

    assert [await asyncio.to_thread(received.get, timeout=5) for _ in range(500)] == [Abort(str(n)) for n in range(500)]


async def test_sending_to_nobody_does_not_wait(parent: ParentChannel) -> None:
    assert not parent.send(Abort("a"))


async def test_sending_to_a_worker_that_has_gone_does_not_wait(
    parent: ParentChannel, heard: asyncio.Queue[FromWorker], child: ChildChannel
) -> None:
    await next_of(heard)
    await asyncio.to_thread(child.close)

    await until_true(lambda: not parent.send(Abort("a")))
