"""What is found out about a server before it is measured."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.loadgen.preparation import Plan, ServerRefuses, prepare, words_for
from server.loadgen.target import Target
from server.types import ModelKind
from tests.fakes.upstream import Answers, Request, an_api, as_json, chunked, events, plain, upstream


def plan(kind: ModelKind = "chat", **more: object) -> Plan:
    settings = {"input_tokens": 100, "answer_tokens": 20, "batch": 4, "seed": 1, **more}
    return Plan(kind=kind, model="m", **settings)  # type: ignore[arg-type]


async def first_request(plan: Plan, answers: Answers) -> tuple[Request, list[str]]:
    """What is sent once all is prepared, and the notes."""
    async with upstream(answers) as server:
        workload, notes = await prepare(Target("127.0.0.1", server.port), plan, timeout_s=10)
        ask = next(workload.asks)
    path = getattr(ask, "path", "/chat/completions")
    return Request("POST", path, {}, getattr(ask, "body", ask), 0), notes


async def test_a_prompt_has_the_tokens_asked_for_as_the_server_counts_them() -> None:
    request, notes = await first_request(plan(), an_api)

    assert len(request.body["messages"][0]["content"].split()) == 90  # the template adds ten
    assert (request.body["max_tokens"], request.body["ignore_eos"], notes) == (20, True, [])


async def test_texts_have_them_too_and_come_in_lists() -> None:
    request, _ = await first_request(plan("embedding"), an_api)

    assert [len(text.split()) for text in request.body["input"]] == [100] * 4
    assert request.body["encoding_format"] == "base64"


async def test_documents_have_them_too() -> None:
    request, _ = await first_request(plan("rerank"), an_api)

    assert [len(text.split()) for text in request.body["documents"]] == [100] * 4


@pytest.mark.parametrize(("kind", "field"), [("chat", "ignore_eos"), ("embedding", "encoding_format")])
@pytest.mark.parametrize("status", ["400 Bad Request", "422 Unprocessable"])
async def test_an_option_that_is_not_taken_is_left_out_and_said_so(kind: ModelKind, field: str, status: str) -> None:
    def strict(request: Request) -> Iterable[bytes]:
        return [plain(status, b"unknown field")] if field in request.body else an_api(request)

    request, notes = await first_request(plan(kind), strict)

    assert field not in request.body
    assert field in notes[0]


async def test_without_counts_a_word_is_a_token() -> None:
    request, notes = await first_request(plan(), lambda _: chunked(events("a", usage=None)))

    assert len(request.body["messages"][0]["content"].split()) == 100
    assert "does not count tokens" in notes[0]


async def test_an_answer_of_another_shape_counts_nothing() -> None:
    request, _ = await first_request(plan("embedding"), lambda _: [as_json([[0.1, 0.2]])])

    assert [len(text.split()) for text in request.body["input"]] == [100] * 4


async def test_given_prompts_are_sent_in_turn() -> None:
    prompts = [[{"role": "user", "content": text}] for text in ("one", "two")]

    async with upstream(an_api) as server:
        target = Target("127.0.0.1", server.port)
        workload, _ = await prepare(target, plan(prompts=prompts), timeout_s=10)

    assert [next(workload.asks)["messages"][0]["content"] for _ in range(3)] == ["one", "two", "one"]


@pytest.mark.parametrize("status", ["401 Unauthorized", "404 Not Found", "503 Busy"])
async def test_a_server_that_refuses_is_not_measured(status: str) -> None:
    said = json.dumps({"error": {"message": "go away"}}).encode()
    async with upstream(lambda _: [plain(status, said)]) as server:
        with pytest.raises(ServerRefuses, match=f"status {status[:3]}: .*go away"):
            await prepare(Target("127.0.0.1", server.port), plan(), timeout_s=10)

        assert len(server.requests) == 1


@given(st.integers(0, 50), st.integers(1, 8), st.integers(1, 5000))
def test_two_texts_tell_how_many_words_make_how_many_tokens(added: int, per_word: int, num_words: int) -> None:
    def tokens(words: int) -> int:
        return added + per_word * words

    assert words_for(tokens(num_words), (16, tokens(16)), (80, tokens(80))) == num_words


def test_there_is_always_a_word() -> None:
    assert words_for(5, (16, 40), (80, 104)) == 1
