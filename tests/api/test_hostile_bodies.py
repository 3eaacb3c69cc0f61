"""Bad input is answered with 400, 404, 413 or 415 in OpenAI's shape, with `param` named; never 422, never 500."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.api.body import parse_json
from server.errors import RequestTooLarge
from tests.api.conftest import Stack
from tests.fakes.asgi import AsgiConnection

JSON = {"content-type": "application/json"}
CHAT = "/v1/chat/completions"
VALID: dict[str, dict[str, Any]] = {
    CHAT: {"model": "talker", "messages": [{"role": "user", "content": "Hi"}]},
    "/v1/responses": {"model": "talker", "input": "Hi", "store": False},
    "/v1/completions": {"model": "talker", "prompt": "Once"},
    "/v1/embeddings": {"model": "embedder", "input": "abc"},
    "/v1/rerank": {"model": "ranker", "query": "q", "documents": ["d"]},
    "/v1/vector_stores": {"name": "notes"},
    "/v1/vector_stores/vs_1": {"name": "notes"},
    "/v1/vector_stores/vs_1/files": {"file_id": "file-1"},
    "/v1/vector_stores/vs_1/files/file-1": {"attributes": {"year": 1999}},
    "/v1/vector_stores/vs_1/file_batches": {"file_ids": ["file-1"]},
    "/v1/vector_stores/vs_1/search": {"query": "q"},
}
NUMERIC = {
    "temperature": CHAT,
    "top_p": CHAT,
    "top_k": CHAT,
    "min_p": CHAT,
    "presence_penalty": CHAT,
    "frequency_penalty": CHAT,
    "repeat_penalty": CHAT,
    "max_tokens": CHAT,
    "max_completion_tokens": CHAT,
    "seed": CHAT,
    "n": CHAT,
    "top_logprobs": CHAT,
    "logit_bias": CHAT,
    "best_of": "/v1/completions",
    "dimensions": "/v1/embeddings",
    "top_n": "/v1/rerank",
}


async def refusal(client: httpx.AsyncClient, path: str, body: bytes, headers: dict[str, str] | None = None) -> Any:
    """The error of a request that must be refused, checked for its shape."""
    response = await client.post(path, content=body, headers=JSON if headers is None else headers)
    assert response.status_code in (400, 404, 413, 415), response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    return error


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 400, '"1"', "true", "[]", "[1]"])
@pytest.mark.parametrize("name", NUMERIC)
async def test_a_number_that_is_none_is_refused_by_name(client: httpx.AsyncClient, name: str, value: str) -> None:
    body = orjson.dumps(VALID[NUMERIC[name]])[:-1] + f',"{name}":{value}}}'.encode()

    assert (await refusal(client, NUMERIC[name], body))["param"] == name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[(name, 1e308) for name in NUMERIC],
        *[(name, -1) for name in NUMERIC if name not in ("seed", "presence_penalty", "frequency_penalty")],
        *[(name, 2**63) for name in NUMERIC],
        *[(name, 2**31) for name in NUMERIC if name != "seed"],
        ("temperature", 2.01),
        ("presence_penalty", -2.01),
        ("top_p", 1.01),
        ("max_tokens", 0),
        ("n", 17),
        ("n", True),
        ("logit_bias", {"-1": 1}),
        ("logit_bias", {"2147483648": 1}),
        ("logit_bias", {"five": 1}),
        ("logit_bias", {"5": 100.1}),
        ("logit_bias", {"5": None}),
        ("logit_bias", {str(i): 1 for i in range(1025)}),
    ],
)
async def test_a_number_out_of_range_is_refused_by_name(client: httpx.AsyncClient, name: str, value: Any) -> None:
    path = NUMERIC[name]

    assert (await refusal(client, path, orjson.dumps({**VALID[path], name: value})))["param"] == name


@pytest.mark.parametrize(
    ("path", "change", "param", "code"),
    [
        (CHAT, {"model": None}, "model", "missing_required_parameter"),
        (CHAT, {"model": 5}, "model", "invalid_type"),
        (CHAT, {"model": ""}, "model", "invalid_value"),
        (CHAT, {"model": "nobody"}, "model", "model_not_found"),
        (CHAT, {"model": "../../etc/passwd"}, "model", "model_not_found"),
        (CHAT, {"model": "\0"}, "model", "model_not_found"),
        (CHAT, {"model": "x" * 10_000}, "model", "model_not_found"),
        (CHAT, {"model": "embedder"}, "model", "model_kind_mismatch"),
        ("/v1/completions", {"model": "ranker"}, "model", "model_kind_mismatch"),
        ("/v1/embeddings", {"model": "talker"}, "model", "model_kind_mismatch"),
        ("/v1/rerank", {"model": "embedder"}, "model", "model_kind_mismatch"),
        (CHAT, {"messages": []}, "messages", "invalid_value"),
        (CHAT, {"messages": None}, "messages", "missing_required_parameter"),
        (CHAT, {"messages": "Hi"}, "messages", "invalid_type"),
        (CHAT, {"messages": [None]}, "messages[0]", "invalid_type"),
        (CHAT, {"messages": [{"content": "Hi"}]}, "messages[0].role", "missing_required_parameter"),
        (CHAT, {"messages": [{"role": "judge", "content": "Hi"}]}, "messages[0].role", "invalid_value"),
        (CHAT, {"messages": [{"role": ["user"], "content": "Hi"}]}, "messages[0].role", None),
        (CHAT, {"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
        (CHAT, {"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "invalid_type"),
        (CHAT, {"messages": [{"role": "assistant"}]}, "messages[0].content", "invalid_value"),
        (CHAT, {"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id", None),
        (CHAT, {"messages": [{"role": "user", "content": "x", "nam": 1}]}, "messages[0].nam", "unknown_parameter"),
        (
            CHAT,
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///x"}}]}]},
            "messages[0].content",
            "unsupported_value",
        ),
        (CHAT, {"messages": [{"role": "user", "content": "x"}] * 10_001}, "messages", "invalid_value"),
        (CHAT, {"tools": [{"type": "function", "function": {"name": "f"}}] * 2}, "tools", "invalid_value"),
        (CHAT, {"tools": [{"type": "function", "function": {"name": "f"}}] * 129}, "tools", "invalid_value"),
        (CHAT, {"tool_choice": "auto"}, "tool_choice", "unsupported_parameter"),
        (CHAT, {"response_format": {"type": "json"}}, "response_format.type", "invalid_value"),
        (CHAT, {"logprobs": 1}, "logprobs", "invalid_type"),
        (CHAT, {"prediction": {"type": "content", "content": [{"type": "image"}]}}, "prediction.content", None),
        (CHAT, {"audio": {}}, "audio", "unsupported_parameter"),
        (CHAT, {"modalities": ["text", "audio"]}, "modalities", "unsupported_parameter"),
        (CHAT, {f"field{i}": 1 for i in range(300)}, None, "invalid_value"),
        (CHAT, {"max_token": 5}, "max_token", "unknown_parameter"),
        (CHAT, {"stream": "yes"}, "stream", "invalid_type"),
        (CHAT, {"stream_options": {"usage": True}}, "stream_options.usage", "unknown_parameter"),
        (CHAT, {"stop": ["a", "b", "c", "d", "e"]}, "stop", "invalid_value"),
        (CHAT, {"stop": [""]}, "stop", "invalid_value"),
        (CHAT, {"stop": "é" * 257}, "stop", "invalid_value"),
        (CHAT, {"stop": [1]}, "stop", "invalid_type"),
        ("/v1/completions", {"prompt": []}, "prompt", "invalid_value"),
        ("/v1/completions", {"prompt": ""}, "prompt", "invalid_value"),
        ("/v1/completions", {"prompt": [-1]}, "prompt", "invalid_value"),
        ("/v1/completions", {"prompt": [2**31]}, "prompt", "invalid_value"),
        ("/v1/completions", {"prompt": [1, "a"]}, "prompt", "invalid_type"),
        ("/v1/completions", {"prompt": [[1], []]}, "prompt", "invalid_value"),
        ("/v1/completions", {"prompt": [True]}, "prompt", "invalid_type"),
        ("/v1/completions", {"prompt": ["a"] * 129}, "prompt", "invalid_value"),
        ("/v1/completions", {"echo": 1}, "echo", "invalid_type"),
        ("/v1/completions", {"prompt": ["a"] * 128, "n": 2}, "n", "invalid_value"),
        ("/v1/completions", {"n": 3, "best_of": 2}, "best_of", "invalid_value"),
        ("/v1/embeddings", {"input": []}, "input", "invalid_value"),
        ("/v1/embeddings", {"input": ["a", ""]}, "input", "invalid_value"),
        ("/v1/embeddings", {"input": {}}, "input", "invalid_type"),
        ("/v1/embeddings", {"encoding_format": "hex"}, "encoding_format", "invalid_value"),
        ("/v1/rerank", {"query": ""}, "query", "invalid_value"),
        ("/v1/rerank", {"documents": []}, "documents", "invalid_value"),
        ("/v1/rerank", {"documents": [{"title": "x"}]}, "documents", "invalid_type"),
        ("/v1/rerank", {"top_n": -1}, "top_n", "invalid_value"),
    ],
)
async def test_a_wrong_field_is_refused_by_name(
    client: httpx.AsyncClient, path: str, change: dict[str, Any], param: str | None, code: str | None
) -> None:
    error = await refusal(client, path, orjson.dumps({**VALID[path], **change}))

    assert error["param"] == param
    assert code in (None, error["code"])
    assert len(error["message"]) < 11_000


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"{", None),
        (b"nonsense", None),
        (b'{"model":"talker",}', None),
        (b"\xef\xbb\xbf{}", None),
        ("{}".encode("utf-16"), None),
        (b'{"model":"\xff"}', None),
        (b'{"model":"\\ud800"}', "model"),
        (b'{"messages":[{"role":"user","content":"\\udc00"}]}', "messages[0].content"),
        (b'{"seed":' + b"9" * 5000 + b"}", "seed"),
        (b'{"metadata":{"a":[0,NaN]}}', "metadata.a[1]"),
        (b"[" * 101 + b"]" * 101, None),
        (b"[" * 250_000, None),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, None),
    ],
)
async def test_what_is_not_strict_json_is_refused(client: httpx.AsyncClient, body: bytes, param: str | None) -> None:
    error = await refusal(client, CHAT, body)

    assert error["code"] == "invalid_json"
    assert error["param"] == param


@pytest.mark.parametrize("body", [b"[]", b"5", b'"x"', b"null", b"true"])
async def test_a_body_that_is_no_object_is_refused(client: httpx.AsyncClient, body: bytes) -> None:
    assert (await refusal(client, CHAT, body))["code"] == "invalid_type"


async def test_a_hundred_levels_are_not_too_deep(client: httpx.AsyncClient) -> None:
    body = orjson.dumps(VALID[CHAT])[:-1] + b',"metadata":{"a":' + b"[" * 98 + b"]" * 98 + b"}}"

    assert (await client.post(CHAT, content=body, headers=JSON)).status_code == 200


@pytest.mark.parametrize("value", [b"[]", b'"a"', b"{}", b"null", b'"1,2"'])
def test_a_million_values_are_refused_before_they_are_made(value: bytes) -> None:
    with pytest.raises(RequestTooLarge):
        parse_json(b"[" + b",".join([value] * 1_000_001) + b"]")


@pytest.mark.parametrize(
    ("prefix", "value", "count", "suffix"),
    [(b"[", b"1", 4_000_005, b"]"), (b"[", b" 1.5e3", 4_000_005, b"]"), (b"{", b'"a":1', 1_000_002, b"}")],
)
def test_only_in_lists_may_there_be_more_numbers(prefix: bytes, value: bytes, count: int, suffix: bytes) -> None:
    with pytest.raises(RequestTooLarge):
        parse_json(prefix + b",".join([value] * count) + suffix)


@pytest.mark.parametrize("separator", [b",", b", "])
def test_lists_of_token_ids_may_be_as_many_as_a_request_may_have(separator: bytes) -> None:
    token_ids = b"[" + separator.join([b"12345"] * 1_900) + b"]"

    body = b'{"model":"m","input":[' + separator.join([token_ids] * 2_048) + b"]}"

    assert len(parse_json(body)["input"]) == 2_048


def test_brackets_and_commas_in_texts_do_not_count() -> None:
    text = '[{,"\\' * 400_000

    assert parse_json(orjson.dumps([text])) == [text]


async def test_null_means_default(client: httpx.AsyncClient, stack: Stack) -> None:
    nulls = dict.fromkeys([*NUMERIC, "tools", "stream", "response_format", "user", "stop"])
    del nulls["best_of"], nulls["dimensions"], nulls["top_n"]

    await client.post(CHAT, json=VALID[CHAT])
    response = await client.post(CHAT, json={**VALID[CHAT], **nulls})

    assert response.status_code == 200
    assert stack.chat.requests[0].sampling == stack.chat.requests[1].sampling


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {**JSON, "content-encoding": "gzip"},
    ],
)
async def test_other_media_types_and_encodings_are_refused(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    body = orjson.dumps(VALID[CHAT])

    assert (await refusal(client, CHAT, body, headers))["code"] == "unsupported_media_type"


@pytest.mark.parametrize("length", ["1048577", "9" * 5000, "-1", "many", "１"])
async def test_a_declared_length_is_judged_before_the_body_is_read(stack: Stack, length: str) -> None:
    connection = AsgiConnection(stack.app(), CHAT, VALID[CHAT], {"content-length": length})

    assert await connection.read_status() in (400, 413)
    await connection.done


async def test_a_chunked_body_is_cut_off_at_the_limit(client: httpx.AsyncClient) -> None:
    num_read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal num_read
        while num_read < 64:
            num_read += 1
            yield b" " * 65_536

    response = await client.post(CHAT, content=endless(), headers=JSON)

    assert response.status_code == 413
    assert response.headers["connection"] == "close"
    assert num_read <= 18


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = [
    "model",
    "messages",
    "prompt",
    "input",
    "query",
    "documents",
    "stop",
    "logit_bias",
    "tools",
    "tool_choice",
    "text",
    "reasoning",
    "include",
    "temperature",
    "seed",
    "stream",
    "stream_options",
    "encoding_format",
    "response_format",
    "grammar",
    "metadata",
    "n",
    "best_of",
    "logprobs",
    "top_logprobs",
    "echo",
    "suffix",
    "prediction",
    "timings",
    "name",
    "file_id",
    "file_ids",
    "files",
    "attributes",
    "chunking_strategy",
    "expires_after",
    "filters",
    "ranking_options",
    "max_num_results",
]
messages = st.lists(st.fixed_dictionaries({"role": json_values | st.just("user"), "content": json_values}), max_size=3)
mutations = st.dictionaries(st.sampled_from(FIELDS), json_values | messages, max_size=4)


@pytest.mark.parametrize("path", VALID)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mutation=mutations)
async def test_random_json_never_is_a_server_error(
    client: httpx.AsyncClient, path: str, mutation: dict[str, Any]
) -> None:
    body = orjson.dumps({**VALID[path], **mutation})

    response = await client.post(path, content=body, headers=JSON)

    assert response.status_code < 500
    assert response.status_code != 422
