"""A streamed chat, as its client sees it."""

from __future__ import annotations

import json
import time

import pytest

from server.loadgen.answer import Answer, ask
from server.loadgen.connection import connected
from server.loadgen.target import Target
from tests.fakes.upstream import CLOSE, HANG, Answers, chunked, events, plain, until_closed, upstream


async def asked(answers: Answers, *, timeout_s: float = 10) -> Answer:
    async with upstream(answers) as server, connected(Target("127.0.0.1", server.port), timeout_s=timeout_s) as client:
        return await ask(client, Answer({"model": "m"}, time.perf_counter()))


def delta(**said: str) -> bytes:
    return b"data: " + json.dumps({"choices": [{"delta": said}]}).encode() + b"\n\n"


async def test_an_answer_has_its_text_and_what_the_server_counted() -> None:
    answer = await asked(lambda _: chunked(events("Hel", "lo")))

    assert (answer.text, answer.error, len(answer.chunk_s)) == ("Hello", "", 2)
    assert (answer.num_tokens, answer.num_prompt_tokens, answer.num_cached_tokens) == (2, 3, 1)
    assert answer.due_s <= answer.sent_s <= answer.chunk_s[0] <= answer.done_s


async def test_events_may_be_cut_anywhere() -> None:
    answer = await asked(lambda _: chunked(events("Hel", "lo").replace(b"\n", b"\r\n"), size=7))

    assert (answer.text, len(answer.chunk_s)) == ("Hello", 2)


async def test_a_server_that_counts_nothing_is_served_too() -> None:
    answer = await asked(lambda _: until_closed(events("a", "b", usage=None)))

    assert (answer.error, answer.num_tokens, len(answer.chunk_s)) == ("", 0, 2)


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
async def test_reasoning_is_what_one_waits_for_too_but_no_answer(field: str) -> None:
    parts = delta(role="assistant", content="") + delta(**{field: "hm"}) + events("so")

    answer = await asked(lambda _: chunked(parts))

    assert (answer.text, len(answer.chunk_s)) == ("so", 2)


@pytest.mark.parametrize(
    ("parts", "error"),
    [
        ([plain("503 Busy", b"no room")], "status 503: no room"),
        (until_closed(events("Hel", is_done=False)), "the stream ended without [DONE]"),
        (chunked(b'data: {"error": {"message": "lost"}}\n\n'), '{"message":"lost"}'),
        (chunked(b'error: {"code":500}\n\n'), 'error: {"code":500}'),
        ([*chunked(events("Hel", is_done=False))[:-1], CLOSE], "closed the connection in the middle of its answer"),
        (chunked(b"data: <html>\n\n"), "an event is not a chunk of a chat: DecodeError"),
        (chunked(b'data: {"choices": [{"text": "a"}]}\n\n'), "an event is not a chunk of a chat: KeyError"),
        ([CLOSE], "the server closed the connection without an answer"),
    ],
)
async def test_a_failure_is_kept_as_its_reason(parts: list[bytes], error: str) -> None:
    assert error in (await asked(lambda _: parts)).error


async def test_a_stream_that_stands_still_fails_with_what_had_come() -> None:
    head, first, *_ = chunked(events("Hello"), size=60)

    answer = await asked(lambda _: [head, first, HANG], timeout_s=0.05)

    assert (answer.error, answer.text) == ("not answered within 0.05 s", "Hello")
