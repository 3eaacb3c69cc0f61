from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from msgspec import structs

from server.types import GenerateRequest, Grammar
from server.workers.front import Asked, Front
from tests.fakes.scripted import request, until_true


class Engine:
    """Keeps what the front gives it. Preparing a request waits for the gate."""

    def __init__(self) -> None:
        self.has: list[str] = []
        self.entered = threading.Event()
        self.gate = threading.Event()

    def prepare(self, asked: Asked) -> None:
        self.entered.set()
        assert self.gate.wait(5)
        self.has.append(asked.request_id)

    def abort(self, request_id: str) -> None:
        if request_id in self.has:
            self.has.remove(request_id)


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine()
    yield engine
    engine.gate.set()


@pytest.fixture
def front(engine: Engine) -> Front:
    return Front(engine.prepare, engine.abort)


async def test_requests_reach_the_engine_in_order(front: Front, engine: Engine) -> None:
    engine.gate.set()
    asked = [request() for _ in range(20)]

    for one in asked:
        front.submit(one)
    await until_true(lambda: front.num_waiting == 0)

    assert engine.has == [one.request_id for one in asked]
    assert front.num_prepared == 20


async def test_an_abort_does_not_wait_for_the_front_thread(front: Front, engine: Engine) -> None:
    engine.has.append("running")
    front.submit(request())
    assert engine.entered.wait(5)

    front.abort("running")

    assert engine.has == []


async def test_a_request_aborted_while_it_waits_is_never_prepared(front: Front, engine: Engine) -> None:
    first, second = request(), request()
    front.submit(first)
    front.submit(second)
    assert engine.entered.wait(5)

    front.abort(second.request_id)
    assert front.num_waiting == 2
    engine.gate.set()
    await until_true(lambda: front.num_waiting == 0)

    assert engine.has == [first.request_id]


async def test_a_request_aborted_while_it_is_prepared_does_not_stay_in_the_engine(front: Front, engine: Engine) -> None:
    asked = request()
    front.submit(asked)
    assert engine.entered.wait(5)

    front.abort(asked.request_id)
    engine.gate.set()
    await until_true(lambda: front.num_waiting == 0)

    assert engine.has == []


async def test_a_request_without_a_grammar_does_not_wait_for_one_with(engine: Engine) -> None:
    """Compiling a grammar may take seconds."""
    compiling = threading.Event()

    def prepare(asked: GenerateRequest) -> None:
        assert not asked.grammar or compiling.wait(5)
        engine.has.append(asked.request_id)

    front = Front(prepare, engine.abort)
    slow, quick = structs.replace(request(), grammar=Grammar("json_object", "", "response_format")), request()
    front.submit(slow)
    front.submit(quick)
    await until_true(lambda: front.num_waiting == 1)

    assert engine.has == [quick.request_id]
    compiling.set()
    await until_true(lambda: front.num_waiting == 0)
    assert engine.has == [quick.request_id, slow.request_id]


async def test_an_abort_at_any_moment_leaves_nothing_behind(front: Front, engine: Engine) -> None:
    engine.gate.set()

    for _ in range(2000):
        asked = request()
        front.submit(asked)
        front.abort(asked.request_id)
    await until_true(lambda: front.num_waiting == 0)

    assert engine.has == []
