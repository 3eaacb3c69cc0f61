"""What benchmarks of chats add to the load generator; its own tests are in tests/loadgen/."""

from __future__ import annotations

import json
import time

from benchmarks.load import Answer, ask, closed_loop, open_loop
from tests.fakes.upstream import an_api, chunked, events, upstream


async def test_what_a_grounded_answer_rests_on_is_no_text() -> None:
    sourced = {"choices": [{"delta": {"x": {"sources": [{}, {}], "timings_ms": {"search": 20, "total": 250}}}}]}
    cited = {"choices": [{"delta": {"citations": [], "x": {"num_removed_citations": 0}}}]}
    before = b"".join(f"data: {json.dumps(chunk)}\n\n".encode() for chunk in (sourced, cited))

    async with upstream(lambda _: chunked(before + events("so [1]."))) as server:
        answer = await ask(server.port, Answer({}, due_s=0.0))

    assert (answer.num_sources, answer.finding_s, answer.text, len(answer.chunk_s)) == (2, 0.25, "so [1].", 1)


async def test_a_closed_loop_sends_every_body_once_each_on_a_connection_of_its_own() -> None:
    bodies = [{"number": number} for number in range(7)]
    async with upstream(lambda _: chunked(events("a"))) as server:
        answers = await closed_loop(server.port, list(bodies), num_clients=3)

    assert sorted(answer.body["number"] for answer in answers) == list(range(7))  # type: ignore[type-var]
    assert server.num_connections == 7


async def test_an_open_loop_sends_when_requests_are_due() -> None:
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
    async with upstream(an_api) as server:
        began_s = time.perf_counter()
        answers = await open_loop(server.port, [body, body], [0.0, 0.02])

    assert [answer.error for answer in answers] == ["", ""]
    assert answers[1].due_s - began_s >= 0.02
    assert all(answer.sent_s >= answer.due_s for answer in answers)
