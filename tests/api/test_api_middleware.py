"""What holds for every request: ids, timing, the canonical log line, and errors of one shape."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.errors import ConfigError, WorkerCrashed
from server.types import Delta, Started
from tests.api.conftest import Stack
from tests.fakes.asgi import AsgiConnection

URL = "/v1/chat/completions"
HELLO = {"model": "talker", "messages": [{"role": "user", "content": "Hi"}]}


def access_lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [vars(record) for record in caplog.records if record.name.endswith("access_log")]


@pytest.fixture(autouse=True)
def _log_everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


@pytest.mark.parametrize(("method", "path"), [("GET", "/health"), ("GET", "/nowhere"), ("PUT", "/v1/models")])
async def test_every_answer_has_an_id_and_its_duration(client: httpx.AsyncClient, method: str, path: str) -> None:
    response = await client.request(method, path)

    assert response.headers["x-request-id"]
    assert int(response.headers["openai-processing-ms"]) >= 0


@pytest.mark.parametrize(("offered", "is_kept"), [("trace-1.a:b_c", True), ("x" * 129, False), ("a b", False)])
async def test_a_safe_request_id_is_kept(client: httpx.AsyncClient, offered: str, *, is_kept: bool) -> None:
    response = await client.get("/version", headers={"x-request-id": offered})

    assert (response.headers["x-request-id"] == offered) is is_kept


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/v1/models/", 404, "model_not_found"),
        ("POST", "/v1/chat/completions/", 404, "not_found"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
    ],
)
async def test_the_routers_errors_have_the_same_shape(
    client: httpx.AsyncClient, method: str, path: str, status: int, code: str
) -> None:
    response = await client.request(method, path)

    assert response.status_code == status
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    assert response.json()["error"]["code"] == code
    assert ("allow" in response.headers) is (status == 405)


@pytest.mark.parametrize(("num_bytes", "is_cut"), [(10, False), (70_000, True)])
async def test_a_refused_body_is_read_to_its_end_if_that_is_near(
    client: httpx.AsyncClient, num_bytes: int, is_cut: bool
) -> None:
    """A connection that is closed on what the client still sends may cost it the answer."""
    response = await client.post(URL, content=b"x" * num_bytes, headers={"content-type": "text/plain"})

    assert response.status_code == 415
    assert (response.headers.get("connection") == "close") is is_cut


async def test_allow_names_all_methods_of_the_path(client: httpx.AsyncClient) -> None:
    response = await client.put("/v1/files/file-1")

    assert (response.status_code, response.headers["allow"]) == (405, "DELETE, GET, HEAD")


@pytest.mark.parametrize("bug", [RuntimeError("secret /etc/path"), ConfigError("secret /etc/path")])
async def test_a_bug_is_a_500_without_details_and_logged_with_them(
    client: httpx.AsyncClient, stack: Stack, caplog: pytest.LogCaptureFixture, bug: Exception
) -> None:
    stack.chat.steps = (bug,)

    response = await client.post(URL, json=HELLO)

    assert response.status_code == 500
    assert response.json()["error"]["code"] == "internal_error"
    assert "secret" not in response.text
    request_id = response.headers["x-request-id"]
    assert request_id in response.json()["error"]["message"]
    [logged] = [record for record in caplog.records if record.exc_info]
    assert vars(logged)["request_id"] == request_id


async def test_a_bug_inside_a_stream_is_logged_and_hidden_too(
    client: httpx.AsyncClient, stack: Stack, caplog: pytest.LogCaptureFixture
) -> None:
    stack.chat.steps = (Started(1), Delta("x"), RuntimeError("secret"))

    response = await client.post(URL, json={**HELLO, "stream": True})

    assert "internal_error" in response.text
    assert "secret" not in response.text
    assert any(record.exc_info for record in caplog.records)


@pytest.mark.parametrize("stream", [False, True])
async def test_one_line_tells_all_about_a_request(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, *, stream: bool
) -> None:
    await client.post(URL, json={**HELLO, "stream": stream}, headers={"x-request-id": "r1"})

    [line] = access_lines(caplog)
    assert (line["request_id"], line["method"], line["path"], line["status"]) == ("r1", "POST", URL, 200)
    assert (line["model"], line["prompt_tokens"], line["completion_tokens"]) == ("talker", 5, 2)
    assert line["finish_reason"] == "stop"
    assert line["duration_ms"] >= 0
    assert line["generation_id"].startswith("chatcmpl-")


async def test_the_line_tells_who_asked_and_where_the_time_went(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {"x-hearth-sender": "eve", "traceparent": f"00-{trace}-00f067aa0ba902b7-01"}

    await client.post(URL, json=HELLO, headers=headers)

    [line] = access_lines(caplog)
    assert (line["tenant"], line["sender"], line["trace_id"]) == ("default", "eve", trace)
    assert line["cached_tokens"] == 2
    assert line["ttft_ms"] >= 0 and line["itl_ms"] >= 0 and line["queue_ms"] == 0
    assert line["usage_id"].startswith("use_")


@pytest.mark.parametrize("sent", ["junk", "00-xyz-00f067aa0ba902b7-01", "00-" + "a" * 32 + "-b-01\n"])
async def test_a_trace_that_is_none_is_not_logged(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, sent: str
) -> None:
    await client.get("/version", headers={"traceparent": sent.strip()})

    [line] = access_lines(caplog)
    assert "trace_id" not in line


async def test_a_failed_stream_is_an_error_in_the_log(
    client: httpx.AsyncClient, stack: Stack, caplog: pytest.LogCaptureFixture
) -> None:
    stack.chat.steps = (Started(1), WorkerCrashed("the worker has died"))

    await client.post(URL, json={**HELLO, "stream": True})

    [line] = access_lines(caplog)
    assert (line["status"], line["error"], line["levelname"]) == (200, "worker_crashed", "ERROR")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_left_is_logged_as_499(
    stack: Stack, caplog: pytest.LogCaptureFixture, *, stream: bool
) -> None:
    stack.chat.steps = (Started(1), asyncio.Event())
    connection = AsgiConnection(stack.app(), URL, {**HELLO, "stream": stream})
    await asyncio.wait_for(stack.chat.begun.wait(), timeout=5)

    connection.disconnect()
    await connection.done

    [line] = access_lines(caplog)
    assert line["status"] == 499


async def test_health_is_not_logged(client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    for path in ("/health", "/ready", "/livez"):
        await client.get(path)

    assert not access_lines(caplog)


async def test_a_path_cannot_forge_a_log_line(client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    await client.get("/x%0aINFO forged")

    [line] = access_lines(caplog)
    assert line["path"] == "/x%0AINFO%20forged"


def held_at(words: bytes, app: ASGIApp) -> ASGIApp:
    """The app, over a connection that takes no more after these words."""

    async def held(scope: Scope, receive: Receive, send: Send) -> None:
        async def hold(message: Message) -> None:
            await send(message)
            if words in message.get("body", b""):
                await asyncio.Event().wait()

        await app(scope, receive, hold)

    return held


@pytest.mark.parametrize(
    ("path", "asked"), [(URL, HELLO), ("/v1/completions", {"model": "talker", "prompt": "a"})], ids=["chat", "text"]
)
async def test_tokens_are_logged_of_a_client_that_leaves_after_the_last_words(
    stack: Stack, caplog: pytest.LogCaptureFixture, path: str, asked: dict[str, Any]
) -> None:
    last_words = b'"finish_reason":"stop"'
    connection = AsgiConnection(held_at(last_words, stack.app()), path, {**asked, "stream": True})
    await connection.read_status()
    while last_words not in await connection.read_chunk():
        pass

    connection.disconnect()
    await connection.done

    [line] = access_lines(caplog)
    assert (line["prompt_tokens"], line["completion_tokens"], line["finish_reason"]) == (5, 2, "stop")
