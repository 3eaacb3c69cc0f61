"""Clients that send or read slowly, or not at all, on real sockets."""

from __future__ import annotations

import asyncio

import pytest

from server.cli import http_protocol
from server.cli.http_protocol import MIN_UPLOAD_BYTES_PER_S
from tests.fakes.http_shapes import CHUNKED, GET, POST, statuses
from tests.fakes.open_house import READ_S, House, error_of, open_house


@pytest.mark.parametrize(
    "part",
    [b"G", GET, POST + b"Content-Length: 10\r\n\r\nabc", CHUNKED + b"\r\n5\r\nab"],
    ids=["line", "headers", "body", "chunk"],
)
async def test_a_request_that_does_not_arrive_is_refused(part: bytes) -> None:
    async with open_house(receive_timeout_s=0.1) as house:
        answer = await house.exchange(part)

        assert statuses(answer) == [408]
        assert error_of(answer)["code"] == "request_timeout"
        assert house.seen == []


async def test_trickling_does_not_help() -> None:
    async with open_house(receive_timeout_s=0.2) as house:
        reader, writer = await house.connect()

        async def trickle() -> None:
            while True:
                writer.write(b"A: b\r\n")
                await asyncio.sleep(0.01)

        writer.write(GET)
        trickling = asyncio.create_task(trickle())
        answer = await asyncio.wait_for(reader.read(-1), READ_S)
        trickling.cancel()
        writer.close()

        assert statuses(answer) == [408]


async def test_who_connects_and_says_nothing_is_let_go_without_a_word() -> None:
    async with open_house(receive_timeout_s=0.1) as house:
        assert await house.exchange(b"") == b""


async def test_between_two_requests_a_connection_is_kept_for_a_moment() -> None:
    async with open_house(keep_alive_s=1) as house:
        answer = await house.exchange(GET + b"\r\n")

        assert statuses(answer) == [200]
        assert b"connection: close" not in answer


async def test_a_request_that_is_being_answered_has_no_deadline() -> None:
    async with open_house(receive_timeout_s=0.1) as house:
        reader, writer = await house.connect()
        writer.write(b"GET /held HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        await house.has_begun.wait()
        asyncio.get_running_loop().call_later(0.3, house.release.set)

        answer = await asyncio.wait_for(reader.read(-1), READ_S)
        writer.close()

        assert statuses(answer) == [200]


async def test_the_next_request_of_a_connection_has_a_deadline_too() -> None:
    async with open_house(receive_timeout_s=0.1) as house:
        answer = await house.exchange(b"GET /first HTTP/1.1\r\nHost: x\r\n\r\nGET /second HT")

        assert statuses(answer) == [200, 408]


async def test_what_is_left_of_a_request_that_was_answered_early_keeps_nothing_open() -> None:
    async with open_house(receive_timeout_s=0.1) as house:
        sent = b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"
        reader, writer = await house.connect()
        writer.write(sent)
        first = await reader.readuntil(b"early")
        writer.write(b"0123456789")

        rest = await asyncio.wait_for(reader.read(-1), READ_S)
        writer.close()

        assert (statuses(first), rest) == ([413], b"")


async def _upload(house: House, *, pieces: int, size: int, pause_s: float) -> bytes:
    reader, writer = await house.connect()
    head = b"POST /upload HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    writer.write(head % (pieces * size))
    reading = asyncio.create_task(reader.read(-1))
    for _ in range(pieces):
        writer.write(b"x" * size)
        await asyncio.wait((reading,), timeout=pause_s)
    answer = await asyncio.wait_for(reading, READ_S)
    writer.close()
    return answer


async def test_an_upload_may_take_longer_when_it_gets_on() -> None:
    async with open_house(receive_timeout_s=0.1) as house:
        answer = await _upload(house, pieces=20, size=MIN_UPLOAD_BYTES_PER_S, pause_s=0.02)

        assert statuses(answer) == [200]


async def test_an_upload_that_hardly_gets_on_is_refused() -> None:
    async with open_house(receive_timeout_s=0.1) as house:
        answer = await _upload(house, pieces=1000, size=1, pause_s=0.02)

        assert statuses(answer) == [408]
        assert house.gone == ["/upload"]


async def test_a_client_that_reads_nothing_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "SEND_STALL_S", 0.1)
    async with open_house() as house:
        _, writer = await house.connect()
        writer.write(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")

        await asyncio.wait_for(house.dropped.wait(), READ_S)
        writer.transport.abort()

        assert house.dropped.is_set()


async def test_a_client_that_reads_slowly_is_not_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "SEND_STALL_S", 0.2)
    async with open_house() as house:
        reader, writer = await house.connect()
        writer.write(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        for _ in range(30):
            await asyncio.wait_for(reader.readexactly(512 * 1024), READ_S)
            await asyncio.sleep(0.02)

        assert not house.dropped.is_set()
        writer.transport.abort()
        await asyncio.wait_for(house.dropped.wait(), READ_S)
