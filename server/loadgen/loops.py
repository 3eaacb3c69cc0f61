"""How many send what, and when: clients that wait for their answers, and requests that come when they like."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Protocol, TypeVar

from server.loadgen.connection import TIMEOUT_S, Connection, connected
from server.loadgen.target import Target

_PAUSE_S = 0.25
"""After a failure: clients of a server that refuses everything must not become a load of their own."""

AskT = TypeVar("AskT")


class Outcome(Protocol):
    """What loops must know of an answer."""

    error: str


OutcomeT = TypeVar("OutcomeT", bound=Outcome)

Send = Callable[[Connection, AskT, float], Awaitable[OutcomeT]]
"""Sends one request that is due at the time given, and returns what became of it."""


async def closed_loop(
    target: Target,
    asks: Iterator[AskT],
    send: Send[AskT, OutcomeT],
    *,
    num_clients: int,
    record: Callable[[OutcomeT], None],
    is_over: Callable[[], bool] = lambda: False,
    is_kept: bool = True,
    timeout_s: float = TIMEOUT_S,
) -> None:
    """Clients send one request after the other until it is over (or there are no more), and wait for the last answers.

    Args:
        record: Gets each answer when it is complete; what runs when this is cancelled is dropped.
        is_kept: Each client keeps its connection; false: a new one for each request.
    """

    async def client() -> None:
        async with connected(target, is_kept=is_kept, timeout_s=timeout_s) as connection:
            while not is_over() and (ask := next(asks, None)) is not None:
                outcome = await send(connection, ask, time.perf_counter())
                record(outcome)
                if outcome.error:
                    await asyncio.sleep(_PAUSE_S)

    async with asyncio.TaskGroup() as clients:
        for _ in range(num_clients):
            clients.create_task(client())


async def open_loop(
    target: Target, asks: Iterator[AskT], send: Send[AskT, OutcomeT], arrivals_s: Sequence[float]
) -> list[OutcomeT]:
    """Send each request at its time after the start, however many are being answered; one connection each."""
    start_s = time.perf_counter()

    async def client(ask: AskT, due_s: float) -> OutcomeT:
        await asyncio.sleep(due_s - time.perf_counter())
        async with connected(target, is_kept=False) as connection:
            return await send(connection, ask, due_s)

    return await asyncio.gather(*(client(next(asks), start_s + arrival_s) for arrival_s in arrivals_s))


def after(seconds: float) -> Callable[[], bool]:
    """True once so many seconds have passed from now."""
    end_s = time.perf_counter() + seconds
    return lambda: time.perf_counter() >= end_s


def poisson_arrivals(count: int, rate: float, *, seed: int) -> list[float]:
    """Seconds after the start of `count` requests that come independently of each other, `rate` a second."""
    pauses = random.Random(seed)  # noqa: S311  # load, not secrets
    return list(itertools.accumulate(pauses.expovariate(rate) for _ in range(count)))
