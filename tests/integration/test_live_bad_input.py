"""Bad requests over real HTTP: refused with the field at fault, and no worker so much as stumbles."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from benchmarks.server_process import ServerProcess
from tests.integration.live_models import CHAT, EMBEDDING, RERANK, ask

pytestmark = pytest.mark.integration

CHATS, COMPLETIONS, EMBEDDINGS, RERANKS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/rerank",
)
LONG = "word " * 400  # the embedding model accepts 256 tokens


@pytest.fixture(autouse=True)
def _workers_stay(live_server: ServerProcess) -> Iterator[None]:
    before = live_server.worker_pids()
    yield
    assert live_server.worker_pids() == before


def _refusal(http: httpx.Client, path: str, body: bytes | dict[str, object]) -> tuple[int, str, str | None]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = http.post(path, content=content, headers={"content-type": "application/json"})
    error = response.json()["error"]
    assert error["message"] and error["type"] == "invalid_request_error"
    return response.status_code, error["code"], error["param"]


@pytest.mark.parametrize("path", [CHATS, COMPLETIONS, EMBEDDINGS, RERANKS])
@pytest.mark.parametrize("body", [b"", b"{", b'{"model": ', b"\xff\xfe", b"[" * 100_000], ids=repr)
def test_malformed_json(http: httpx.Client, path: str, body: bytes) -> None:
    assert _refusal(http, path, body) == (400, "invalid_json", None)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_json_does_not_have(http: httpx.Client, number: str) -> None:
    body = json.dumps(ask("hi", CHAT, temperature=0)).replace("0", number, 1).encode()
    body = body.replace(b'"temperature": 0', f'"temperature": {number}'.encode())

    assert _refusal(http, CHATS, body) == (400, "invalid_json", "temperature")


@pytest.mark.parametrize(
    ("path", "body", "refusal"),
    [
        (CHATS, ask("hi", "nobody"), (404, "model_not_found", "model")),
        (EMBEDDINGS, {"model": "nobody", "input": "hi"}, (404, "model_not_found", "model")),
        (CHATS, ask("hi", RERANK), (400, "model_kind_mismatch", "model")),
        (EMBEDDINGS, {"model": CHAT, "input": "hi"}, (400, "model_kind_mismatch", "model")),
        (RERANKS, {"model": CHAT, "query": "a", "documents": ["b"]}, (400, "model_kind_mismatch", "model")),
        (CHATS, {"model": CHAT}, (400, "missing_required_parameter", "messages")),
        (CHATS, {"model": CHAT, "messages": []}, (400, "invalid_value", "messages")),
        (CHATS, ask("hi", CHAT, max_tokens=0), (400, "invalid_value", "max_tokens")),
        (CHATS, ask("hi", CHAT, temperature=-1), (400, "invalid_value", "temperature")),
        (CHATS, ask("hi", CHAT, temperature="hot"), (400, "invalid_type", "temperature")),
        (CHATS, ask("hi", CHAT, logit_bias={"999999": 1}), (400, "invalid_value", "logit_bias")),
        (CHATS, ask("hi", CHAT, maxtokens=1), (400, "unknown_parameter", "maxtokens")),
        (CHATS, ask("hello " * 9000, CHAT), (400, "context_length_exceeded", "messages")),
        (CHATS, ask("hello " * 1_000_000, CHAT), (400, "context_length_exceeded", "messages")),
        (COMPLETIONS, {"model": CHAT, "prompt": "hello " * 9000}, (400, "context_length_exceeded", "prompt")),
        (COMPLETIONS, {"model": CHAT, "prompt": ""}, (400, "invalid_value", "prompt")),
        (COMPLETIONS, {"model": CHAT, "prompt": [99_999_999]}, (400, "invalid_value", "prompt")),
        (EMBEDDINGS, {"model": EMBEDDING, "input": []}, (400, "invalid_value", "input")),
        (EMBEDDINGS, {"model": EMBEDDING, "input": ""}, (400, "invalid_value", "input")),
        (EMBEDDINGS, {"model": EMBEDDING, "input": ["a", 1.5]}, (400, "invalid_type", "input")),
        (EMBEDDINGS, {"model": EMBEDDING, "input": ["short", LONG]}, (400, "context_length_exceeded", "input")),
        (EMBEDDINGS, {"model": EMBEDDING, "input": ["a"] * 2049}, (413, "request_too_large", "input")),
        (EMBEDDINGS, {"model": EMBEDDING, "input": "a", "dimensions": 7}, (400, "unsupported_parameter", "dimensions")),
        (RERANKS, {"query": "", "documents": ["a"]}, (400, "invalid_value", "query")),
        (RERANKS, {"query": "a", "documents": []}, (400, "invalid_value", "documents")),
        (RERANKS, {"query": "a", "documents": ["short", LONG * 2]}, (400, "context_length_exceeded", "documents[1]")),
        (RERANKS, {"query": "a", "documents": ["b"], "top_n": -1}, (400, "invalid_value", "top_n")),
    ],
    ids=lambda value: str(value)[:60],
)
def test_wrong_requests(
    http: httpx.Client, path: str, body: dict[str, object], refusal: tuple[int, str, str | None]
) -> None:
    assert _refusal(http, path, body) == refusal


def test_a_body_beyond_the_limit_is_413(http: httpx.Client) -> None:
    assert _refusal(http, CHATS, b" " * (33 << 20)) == (413, "request_too_large", None)


@pytest.mark.parametrize(
    "text", ["word " * 6_000_000, " " * 30_000_000, "word" * 7_500_000], ids=["words", "gap", "word"]
)
@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        (EMBEDDINGS, {"model": EMBEDDING}, "input"),
        (RERANKS, {"documents": ["b"]}, "query"),
        (RERANKS, {"query": "a"}, "documents"),
    ],
)
def test_30_megabytes_of_text_cost_the_worker_no_gigabytes(
    http: httpx.Client, live_server: ServerProcess, path: str, body: dict[str, object], field: str, text: str
) -> None:
    worker = live_server.worker_pids()[EMBEDDING if path == EMBEDDINGS else RERANK]
    before_mib = _peak_memory_mib(worker)

    refusal = _refusal(http, path, {**body, field: [text] if field == "documents" else text})

    assert refusal == (400, "context_length_exceeded", "documents[0]" if field == "documents" else field)
    assert _peak_memory_mib(worker) - before_mib < 300  # the request itself, a few times over


def test_30_megabytes_of_text_are_cut_where_asked(http: httpx.Client) -> None:
    body = {"model": EMBEDDING, "input": "word " * 6_000_000, "truncate": True}

    answer = http.post(EMBEDDINGS, json=body).json()

    assert answer["usage"]["prompt_tokens"] == 256


def _peak_memory_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def test_too_long_an_input_names_both_counts_and_where(http: httpx.Client) -> None:
    response = http.post(EMBEDDINGS, json={"model": EMBEDDING, "input": ["short", LONG]})

    message = response.json()["error"]["message"]
    assert "256" in message and "402" in message


def test_text_of_any_script_is_served(http: httpx.Client) -> None:
    for text in ("\x00", "🏳️‍🌈" * 20, "עברית العربية", "e\u0301" * 50, " ", "<|im_start|>system\n<|im_end|>"):
        assert http.post(CHATS, json=ask(text, CHAT, max_tokens=1)).status_code == 200
        assert http.post(EMBEDDINGS, json={"model": EMBEDDING, "input": text}).status_code == 200
        assert http.post(RERANKS, json={"query": text, "documents": [text]}).status_code == 200
