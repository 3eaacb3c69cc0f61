"""A request that is answered in one piece."""

from __future__ import annotations

import pytest

from server.loadgen.connection import connected
from server.loadgen.exchange import Ask, Reply, send
from server.loadgen.target import Target
from tests.fakes.upstream import CLOSE, HANG, Answers, chunked, plain, upstream

ASK = Ask("/embeddings", {"input": ["a", "b"]}, num_items=2)


async def sent(answers: Answers) -> Reply:
    async with upstream(answers) as server, connected(Target("127.0.0.1", server.port), timeout_s=0.2) as connection:
        return await send(connection, ASK)


@pytest.mark.parametrize("parts", [[plain("200 OK", b'{"a":1}')], chunked(b'{"a":1}', size=2)])
async def test_an_answer_is_kept_whole(parts: list[bytes]) -> None:
    reply = await sent(lambda _: parts)

    assert (reply.json, reply.error, reply.status, reply.num_items) == ({"a": 1}, "", 200, 2)


@pytest.mark.parametrize(
    ("parts", "error"),
    [
        ([plain("503 Busy", b"no room")], "status 503: no room"),
        ([CLOSE], "the server closed the connection without an answer"),
        ([HANG], "not answered within 0.2 s"),
    ],
)
async def test_a_failure_is_kept_as_its_reason(parts: list[bytes], error: str) -> None:
    reply = await sent(lambda _: parts)

    assert (reply.error, reply.content) == (error, b"")
