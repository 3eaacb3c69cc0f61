"""The load generator against a server of a few lines."""

from __future__ import annotations

import asyncio
import json
import statistics
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from benchmarks.load import Answer, ask, closed_loop, open_loop, poisson_arrivals

USAGE = {"completion_tokens": 2, "prompt_tokens": 3, "prompt_tokens_details": {"cached_tokens": 1}}


def events(*texts: str, is_done: bool = True) -> bytes:
    chunks = [{"choices": [{"delta": {"content": text}}]} for text in texts] + [{"choices": [], "usage": USAGE}]
    lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks] + ["data: [DONE]\n\n"] * is_done
    return ("HTTP/1.1 200 OK\r\n\r\n" + "".join(lines)).encode()


@asynccontextmanager
async def serving(answer: Callable[[], bytes]) -> AsyncIterator[int]:
    """A server that answers every request with these bytes; yields its port."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in head.splitlines() if line.startswith(b"Content-Length"))
        await reader.readexactly(length)
        writer.write(answer())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def test_an_answer_has_its_text_and_what_the_server_counted() -> None:
    async with serving(lambda: events("Hel", "lo")) as port:
        answer = await ask(port, Answer({}, due_s=0.0))

    assert (answer.text, answer.error, len(answer.chunk_s)) == ("Hello", "", 2)
    assert (answer.num_tokens, answer.num_prompt_tokens, answer.num_cached_tokens) == (2, 3, 1)


async def test_what_a_grounded_answer_rests_on_is_no_text() -> None:
    sourced = {"choices": [{"delta": {"x": {"sources": [{}, {}], "timings_ms": {"search": 20, "total": 250}}}}]}
    cited = {"choices": [{"delta": {"citations": [], "x": {"num_removed_citations": 0}}}]}
    head, stream = events("so [1].").split(b"\r\n\r\n")
    before, behind = (f"data: {json.dumps(chunk)}\n\n".encode() for chunk in (sourced, cited))

    async with serving(lambda: head + b"\r\n\r\n" + before + behind + stream) as port:
        answer = await ask(port, Answer({}, due_s=0.0))

    assert (answer.num_sources, answer.finding_s, answer.text, len(answer.chunk_s)) == (2, 0.25, "so [1].", 1)


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (b"HTTP/1.1 503 Busy\r\n\r\nno room", "status 503: no room"),
        (events("Hel", is_done=False), "the stream ended without [DONE]"),
        (b'HTTP/1.1 200 OK\r\n\r\ndata: {"error": {"message": "lost"}}\n\n', '{"message": "lost"}'),
        (b"", "the server closed the connection without an answer"),
    ],
)
async def test_a_failure_is_kept_as_its_reason(sent: bytes, error: str) -> None:
    async with serving(lambda: sent) as port:
        answer = await ask(port, Answer({}, due_s=0.0))

    assert answer.error == error


async def test_a_server_that_is_gone_is_a_failure_too() -> None:
    async with serving(bytes) as port:
        pass

    assert "ConnectionRefusedError" in (await ask(port, Answer({}, due_s=0.0))).error


async def test_a_closed_loop_sends_every_body_once() -> None:
    bodies = [{"number": number} for number in range(7)]
    async with serving(lambda: events("a")) as port:
        answers = await closed_loop(port, list(bodies), num_clients=3)

    assert sorted(answer.body["number"] for answer in answers) == list(range(7))  # type: ignore[type-var]


async def test_an_open_loop_measures_from_when_requests_were_due() -> None:
    async with serving(lambda: events("a")) as port:
        answers = await open_loop(port, [{}, {}], [0.0, 0.02])

    assert answers[1].due_s - answers[0].due_s == pytest.approx(0.02)
    assert all(answer.sent_s >= answer.due_s for answer in answers)


def test_arrivals_are_poisson_and_the_same_for_the_same_seed() -> None:
    arrivals_s = poisson_arrivals(4000, 5.0, seed=1)
    pauses_s = [after - before for before, after in zip([0.0, *arrivals_s], arrivals_s, strict=False)]

    assert arrivals_s == poisson_arrivals(4000, 5.0, seed=1) != poisson_arrivals(4000, 5.0, seed=2)
    assert statistics.fmean(pauses_s) == pytest.approx(1 / 5.0, rel=0.05)
    assert statistics.stdev(pauses_s) == pytest.approx(1 / 5.0, rel=0.1)
