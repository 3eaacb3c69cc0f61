"""One client and a server that behaves, or does not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.loadgen.connection import BrokenAnswer, connected
from server.loadgen.target import Target
from tests.fakes.upstream import CLOSE, HANG, Answers, chunked, plain, until_closed, upstream

CONTENT = b"data: 1\n\ndata: 2\n\n"


class Notes:
    """What a receiver was told."""

    def __init__(self) -> None:
        self.status = 0
        self.content = b""

    def on_sent(self, at_s: float) -> None:
        assert not self.status

    def on_status(self, status: int, retry_after_s: float | None) -> None:
        self.status = status

    def on_body(self, data: bytes, at_s: float) -> None:
        self.content += data


async def post(answers: Answers, *, times: int = 1, is_kept: bool = True, timeout_s: float = 10) -> tuple[Notes, int]:
    """What the last of some requests got, and how many connections they took."""
    async with upstream(answers) as server:
        async with connected(Target("127.0.0.1", server.port), is_kept=is_kept, timeout_s=timeout_s) as connection:
            for _ in range(times):
                notes = Notes()
                await connection.post("/any", b"{}", notes)
        return notes, server.num_connections


@pytest.mark.parametrize(
    "parts", [[plain("200 OK", CONTENT)], until_closed(CONTENT), chunked(CONTENT), chunked(CONTENT, size=3)]
)
async def test_a_body_arrives_whole_however_it_is_framed(parts: list[bytes]) -> None:
    notes, _ = await post(lambda _: parts)

    assert (notes.status, notes.content) == (200, CONTENT)


@given(st.integers(1, 40), st.integers(1, 40))
def test_it_does_not_matter_where_an_answer_is_cut_on_its_way(chunk_size: int, part_size: int) -> None:
    sent = b"".join(chunked(CONTENT, size=chunk_size))
    parts = [sent[start : start + part_size] for start in range(0, len(sent), part_size)]

    notes, _ = asyncio.run(post(lambda _: parts))

    assert notes.content == CONTENT


async def test_a_connection_is_kept() -> None:
    _, num_connections = await post(lambda _: [plain("200 OK")], times=5)

    assert num_connections == 1


@pytest.mark.parametrize("is_kept", [True, False])
async def test_a_connection_that_is_to_be_closed_is_not_used_again(is_kept: bool) -> None:
    closing = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"

    _, num_connections = await post(lambda _: [closing if is_kept else plain("200 OK")], times=3, is_kept=is_kept)

    assert num_connections == 3


async def test_a_kept_connection_that_was_closed_meanwhile_is_opened_again() -> None:
    """A server may be tired of a connection at any time: that is no failure of a request."""
    notes, num_connections = await post(lambda _: [plain("200 OK"), CLOSE], times=3)

    assert (notes.status, num_connections) == (200, 3)


async def test_what_announces_an_answer_is_not_one() -> None:
    notes, _ = await post(lambda _: [b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n", plain("200 OK", b"yes")])

    assert (notes.status, notes.content) == (200, b"yes")


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([CLOSE], "the server closed the connection without an answer"),
        ([b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", CLOSE], "in the middle of its answer"),
        ([*chunked(b"half")[:-1], CLOSE], "in the middle of its answer"),
        ([b"SSH-2.0-OpenSSH_9.2\r\n", CLOSE], "the answer is not HTTP/1.1"),
    ],
)
async def test_a_broken_answer_says_how(parts: list[bytes], reason: str) -> None:
    with pytest.raises(BrokenAnswer, match=reason):
        await post(lambda _: parts)


async def test_a_server_that_hangs_does_not_hang_the_client() -> None:
    with pytest.raises(TimeoutError, match=r"not answered within 0\.05 s"):
        await post(lambda _: [b"HTTP/1.1 200 OK\r\n", HANG], timeout_s=0.05)


async def test_after_a_failure_the_connection_is_a_new_one() -> None:
    answers: Iterator[list[bytes]] = iter([[b"nonsense\r\n\r\n"], [plain("200 OK", b"yes")]])
    async with upstream(lambda _: next(answers)) as server, connected(Target("127.0.0.1", server.port)) as connection:
        with pytest.raises(BrokenAnswer):
            await connection.post("/any", b"{}", Notes())
        notes = Notes()
        await connection.post("/any", b"{}", notes)

    assert (notes.content, server.num_connections) == (b"yes", 2)


async def test_nobody_listens() -> None:
    async with upstream(lambda _: []) as server:
        pass

    async with connected(Target("127.0.0.1", server.port)) as connection:
        with pytest.raises(ConnectionRefusedError):
            await connection.post("/any", b"{}", Notes())
