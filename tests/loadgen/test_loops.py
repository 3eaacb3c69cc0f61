"""How many send what, and when."""

from __future__ import annotations

import asyncio
import itertools
import statistics

import pytest

from server.loadgen.exchange import Ask, Reply, send
from server.loadgen.loops import closed_loop, open_loop, poisson_arrivals
from server.loadgen.target import Target
from tests.fakes.upstream import HANG, plain, upstream

ASK = Ask("/embeddings", {"input": ["a", "b"]}, num_items=2)


def numbered(count: int) -> list[Ask]:
    return [Ask("/embeddings", {"number": number}, 1) for number in range(count)]


@pytest.mark.parametrize(("is_kept", "num_connections"), [(True, 3), (False, 7)])
async def test_a_closed_loop_sends_every_request_once(is_kept: bool, num_connections: int) -> None:
    replies: list[Reply] = []
    async with upstream(lambda _: [plain("200 OK")]) as server:
        await closed_loop(
            Target("127.0.0.1", server.port),
            iter(numbered(7)),
            send,
            num_clients=3,
            record=replies.append,
            is_kept=is_kept,
        )

    assert sorted(request.body["number"] for request in server.requests) == list(range(7))
    assert ({reply.error for reply in replies}, server.num_connections) == ({""}, num_connections)


async def test_no_request_begins_once_it_is_over() -> None:
    replies: list[Reply] = []
    async with upstream(lambda _: [plain("200 OK")]) as server:
        await closed_loop(
            Target("127.0.0.1", server.port),
            itertools.repeat(ASK),
            send,
            num_clients=3,
            record=replies.append,
            is_over=lambda: len(replies) >= 6,
        )

    assert 6 <= len(replies) == len(server.requests) <= 8


async def test_what_was_answered_is_known_when_the_loop_is_cancelled() -> None:
    replies: list[Reply] = []
    is_stuck = asyncio.Event()

    def answers(_request: object) -> list[bytes]:
        if len(replies) < 2:
            return [plain("200 OK")]
        is_stuck.set()
        return [HANG]

    async with upstream(answers) as server:
        target = Target("127.0.0.1", server.port)
        running = asyncio.create_task(
            closed_loop(target, itertools.repeat(ASK), send, num_clients=1, record=replies.append)
        )
        await is_stuck.wait()
        running.cancel()
        await asyncio.wait([running])

    assert running.cancelled()
    assert len(replies) == 2


async def test_clients_that_are_refused_do_not_hammer() -> None:
    replies: list[Reply] = []
    async with upstream(lambda _: [plain("503 Busy")]) as server:
        try:
            async with asyncio.timeout(0.1):
                await closed_loop(
                    Target("127.0.0.1", server.port), itertools.repeat(ASK), send, num_clients=2, record=replies.append
                )
        except TimeoutError:
            pass

    assert len(replies) == 2


async def test_an_open_loop_measures_from_when_requests_were_due() -> None:
    async with upstream(lambda _: [plain("200 OK")]) as server:
        target = Target("127.0.0.1", server.port)
        first, second = await open_loop(target, itertools.repeat(ASK), send, [0.0, 0.02])

    assert second.due_s - first.due_s == pytest.approx(0.02)
    assert second.done_s >= second.due_s


def test_arrivals_are_poisson_and_the_same_for_the_same_seed() -> None:
    arrivals_s = poisson_arrivals(4000, 5.0, seed=1)
    pauses_s = [after - before for before, after in zip([0.0, *arrivals_s], arrivals_s, strict=False)]

    assert arrivals_s == poisson_arrivals(4000, 5.0, seed=1) != poisson_arrivals(4000, 5.0, seed=2)
    assert statistics.fmean(pauses_s) == pytest.approx(1 / 5.0, rel=0.05)
    assert statistics.stdev(pauses_s) == pytest.approx(1 / 5.0, rel=0.1)
