"""Chats of benchmarks: the package's load generator, pointed at a port of this machine, and what grounded answers add.

Each request has a connection of its own: llama-server gives a thread to each that is kept, and would let other clients
wait for it. It runs in a process of its own, that of the benchmark, while all servers are others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass

from server.loadgen import answer, loops
from server.loadgen.answer import Body, Event
from server.loadgen.connection import Connection, connected
from server.loadgen.target import Target

HOST = "127.0.0.1"


@dataclass
class Answer(answer.Answer):
    """What one streamed request experienced.

    Attributes:
        num_sources: Of a grounded answer, which Hearth tells before its first word.
        finding_s: What the server says that finding them and writing the prompt took.
    """

    num_sources: int = 0
    finding_s: float = 0.0

    def take(self, event: Event, arrived_s: float) -> None:
        super().take(event, arrived_s)
        for choice in event.get("choices", []):
            if sourced := choice["delta"].get("x", {}).get("timings_ms"):
                self.num_sources, self.finding_s = len(choice["delta"]["x"]["sources"]), sourced["total"] / 1000


@dataclass(frozen=True)
class Traffic:
    """What a load experienced as a whole.

    Attributes:
        client_cpu_share: CPU time of this process by wall time; near 1 means that the client was the bottleneck.
    """

    answers: list[Answer]
    wall_s: float
    client_cpu_share: float


def run_traffic(sending: Coroutine[None, None, list[Answer]]) -> Traffic:
    """Run a load to its end, with a clock on it."""
    started, cpu_started = time.perf_counter(), time.process_time()
    answers = asyncio.run(sending)
    wall_s = time.perf_counter() - started
    return Traffic(answers, wall_s, (time.process_time() - cpu_started) / wall_s)


async def closed_loop(port: int, bodies: Iterable[Body], *, num_clients: int) -> list[Answer]:
    """`num_clients` clients send all the bodies, each its next one when its last is answered."""
    answers: list[Answer] = []
    await loops.closed_loop(
        _target(port), iter(bodies), _send, num_clients=num_clients, record=answers.append, is_kept=False
    )
    return answers


async def open_loop(
    port: int, bodies: Sequence[Body], arrivals_s: Sequence[float], *, headers: Mapping[str, str] | None = None
) -> list[Answer]:
    """Send each body at its time after the start, however many are being answered: users do not wait for each other."""
    return await loops.open_loop(_target(port, headers), iter(bodies), _send, arrivals_s)


async def ask(port: int, answer: Answer, *, headers: Mapping[str, str] | None = None) -> Answer:
    """Send `answer.body` as a streamed chat completion; fill the answer as it comes, and return it.

    Never raises: failures are in `error`. When cancelled, the answer holds what had come until then.
    """
    async with connected(_target(port, headers), is_kept=False) as connection:
        return await _fill(connection, answer)


async def _send(connection: Connection, body: Body, due_s: float) -> Answer:
    return await _fill(connection, Answer(body, due_s))


async def _fill(connection: Connection, each: Answer) -> Answer:
    await answer.ask(connection, each)
    return each


def _target(port: int, headers: Mapping[str, str] | None = None) -> Target:
    return Target(HOST, port, more_headers=tuple((headers or {}).items()))
