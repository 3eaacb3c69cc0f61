"""Requests of benchmarks that are answered in one piece: the load generator, pointed at a port of this machine.

Clients keep their connections. Answers are counted without being parsed: the client shares the cores with the servers
that it measures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from benchmarks.load import HOST
from server.loadgen import loops
from server.loadgen.connection import Connection
from server.loadgen.exchange import Ask, Reply, send
from server.loadgen.target import Target


async def closed_loop(
    port: int, asks: Iterator[Ask], *, num_clients: int, is_over: Callable[[], bool], keep: bool = False
) -> list[Reply]:
    """Clients send one request after the other until it is over (or there are no more), and wait for the last answers.

    Args:
        keep: Keep the contents of the answers.
    """
    replies: list[Reply] = []

    async def send_one(connection: Connection, ask: Ask, due_s: float) -> Reply:
        reply = await send(connection, ask, due_s)
        if not keep:
            reply.content = b""
        return reply

    await loops.closed_loop(
        _target(port), asks, send_one, num_clients=num_clients, record=replies.append, is_over=is_over
    )
    return replies


async def open_loop(port: int, asks: Iterator[Ask], arrivals_s: Sequence[float]) -> list[Reply]:
    """Send each request at its time after the start, however many are being answered; one connection each."""
    return await loops.open_loop(_target(port), asks, send, arrivals_s)


def _target(port: int) -> Target:
    """Benchmarks write paths in full."""
    return Target(HOST, port, base="")
