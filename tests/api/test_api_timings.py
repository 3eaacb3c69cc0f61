"""`timings`, the header `server-timing`, and `prediction`."""

from __future__ import annotations

from typing import Any

import httpx
import orjson
import pytest

from server.types import Delta, Finished, Started, Timings, Usage
from tests.api.conftest import Stack

CHAT_URL, COMPLETION_URL = "/v1/chat/completions", "/v1/completions"
HELLO: dict[str, Any] = {"model": "talker", "messages": [{"role": "user", "content": "Hi"}]}
ONCE: dict[str, Any] = {"model": "talker", "prompt": "Once"}
USAGE = Usage(
    prompt_tokens=50,
    completion_tokens=8,
    cached_tokens=10,
    accepted_prediction_tokens=3,
    rejected_prediction_tokens=2,
)
TIMINGS = Timings(queue_ms=1.5, tokenize_ms=0.5, prefill_ms=200, decode_ms=400)
EXPECTED = {
    "cache_n": 10,
    "prompt_n": 40,
    "prompt_ms": 200,
    "prompt_per_second": 200,
    "predicted_n": 8,
    "predicted_ms": 400,
    "predicted_per_second": 20,
}


@pytest.fixture
def stack(stack: Stack) -> Stack:
    stack.chat.steps = (Started(50, 1.25, 0.5), Delta("Hello"), Finished("stop", USAGE, timings=TIMINGS))
    return stack


def chunks_of(response: httpx.Response) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    return [orjson.loads(line) for line in lines if line != "[DONE]"]


@pytest.mark.parametrize(("url", "body"), [(CHAT_URL, HELLO), (COMPLETION_URL, ONCE)])
async def test_who_asks_learns_where_the_time_went(client: httpx.AsyncClient, url: str, body: dict[str, Any]) -> None:
    with_timings = (await client.post(url, json={**body, "timings": True})).json()
    without = (await client.post(url, json=body)).json()

    assert with_timings["timings"] == EXPECTED
    assert "timings" not in without


@pytest.mark.parametrize(("url", "body"), [(CHAT_URL, HELLO), (COMPLETION_URL, ONCE)])
@pytest.mark.parametrize("include_usage", [False, True])
async def test_a_stream_ends_with_its_timings(
    client: httpx.AsyncClient, url: str, body: dict[str, Any], include_usage: bool
) -> None:
    options = {"stream": True, "stream_options": {"include_usage": include_usage}, "timings": True}

    *_, last = chunks_of(await client.post(url, json={**body, **options}))

    assert (last["choices"], last["timings"], "usage" in last) == ([], EXPECTED, include_usage)


async def test_choices_have_their_tokens_together_and_the_longest_times(client: httpx.AsyncClient) -> None:
    timings = (await client.post(CHAT_URL, json={**HELLO, "timings": True, "n": 2})).json()["timings"]

    assert (timings["prompt_n"], timings["predicted_n"], timings["predicted_ms"]) == (40, 16, 400)


async def test_every_answer_has_a_header_of_what_is_known_when_it_goes(client: httpx.AsyncClient) -> None:
    whole = await client.post(CHAT_URL, json=HELLO)
    stream = await client.post(CHAT_URL, json={**HELLO, "stream": True})

    assert whole.headers["server-timing"] == (
        'queue;dur=1.5, tokenize;dur=0.5, prefix-hit;desc="10 of 50 tokens", prefill;dur=200.0, ttft;dur=202.0, '
        "decode;dur=400.0"
    )
    assert stream.headers["server-timing"] == "queue;dur=1.2, tokenize;dur=0.5"


async def test_a_script_takes_no_time(client: httpx.AsyncClient) -> None:
    response = await client.post(CHAT_URL, json={**HELLO, "model": "actor", "timings": True})

    assert response.json()["timings"] is None
    assert "server-timing" not in response.headers


@pytest.mark.parametrize("content", ["a text", [{"type": "text", "text": "a text"}]])
async def test_a_prediction_reaches_the_model_and_is_accounted_for(
    client: httpx.AsyncClient, stack: Stack, content: object
) -> None:
    prediction = {"type": "content", "content": content}

    body = (await client.post(CHAT_URL, json={**HELLO, "prediction": prediction})).json()

    assert stack.chat.requests[0].prediction == "a text"
    details = body["usage"]["completion_tokens_details"]
    assert (details["accepted_prediction_tokens"], details["rejected_prediction_tokens"]) == (3, 2)


@pytest.mark.parametrize(
    ("prediction", "param"),
    [("a text", "prediction"), ({"type": "content"}, "prediction.content"), ({"type": "x"}, "prediction.type")],
)
async def test_a_prediction_of_another_form_is_refused(
    client: httpx.AsyncClient, prediction: object, param: str
) -> None:
    response = await client.post(CHAT_URL, json={**HELLO, "prediction": prediction})

    assert (response.status_code, response.json()["error"]["param"]) == (400, param)
