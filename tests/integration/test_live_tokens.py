"""Tokens and prompts of the real model, over HTTP; and the description that the server gives of itself."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from benchmarks.server_process import ServerProcess
from tests.integration.live_models import CHAT, ask

pytestmark = pytest.mark.integration

TEXT = "Überraschung: naïve façades in 東京, 🙂 and <|im_end|>."


def post(http: httpx.Client, path: str, **body: Any) -> Any:
    return http.post(path, json=body).raise_for_status().json()


def test_tokens_say_the_text_again(http: httpx.Client) -> None:
    tokens = post(http, "/tokenize", content=TEXT)["tokens"]
    spelled = post(http, "/v1/tokenize", model=CHAT, content=TEXT, with_pieces=True)["tokens"]

    assert post(http, "/detokenize", tokens=tokens)["content"] == TEXT
    assert [each["id"] for each in spelled] == tokens
    assert {"id": tokens[-2], "piece": "<|im_end|>"} in spelled


def test_a_part_of_a_code_point_is_bytes_as_a_piece_and_a_replacement_as_text(http: httpx.Client) -> None:
    spelled = post(http, "/tokenize", content="𝔊", with_pieces=True)["tokens"]

    text = post(http, "/detokenize", tokens=[spelled[0]["id"]])["content"]

    assert bytes(byte for each in spelled for byte in each["piece"]).decode() == "𝔊"
    assert text == "\ufffd"


def test_the_rendered_tokens_are_what_a_chat_begins_with(http: httpx.Client) -> None:
    asked = ask(TEXT, CHAT, max_tokens=1)
    rendered = post(http, "/v1/chat/apply_template", **asked)
    usage = post(http, "/v1/chat/completions", **asked)["usage"]
    [control] = post(http, "/tokenize", content="<|im_end|>")["tokens"]
    polite = post(http, "/v1/chat/apply_template", **ask("hi", CHAT))

    assert rendered["count"] == usage["prompt_tokens"]
    assert rendered["tokens"] == post(http, "/tokenize", model=CHAT, messages=asked["messages"])["tokens"]
    assert post(http, "/detokenize", tokens=rendered["tokens"])["content"] == rendered["prompt"]
    assert rendered["tokens"].count(control) == polite["tokens"].count(control)  # those of the template


@pytest.mark.parametrize("token_id", [10**6, 2**31 - 1])
def test_ids_that_the_model_lacks_are_refused(http: httpx.Client, token_id: int) -> None:
    response = http.post("/detokenize", json={"tokens": [1, token_id]})

    assert (response.status_code, response.json()["error"]["param"]) == (400, "tokens")


def test_a_script_has_no_pieces(http: httpx.Client) -> None:
    response = http.post("/tokenize", json={"model": "script", "content": "one two", "with_pieces": True})

    assert response.status_code == 400
    assert post(http, "/tokenize", model="script", content="one two")["count"] == 2


def test_the_server_describes_itself(http: httpx.Client, live_server: ServerProcess) -> None:
    document = http.get("/openapi.json").raise_for_status().json()
    page = http.get("/docs").raise_for_status()

    assert "/v1/chat/completions" in document["paths"]
    assert "POST /v1/chat/completions" in page.text
    assert live_server.url in live_server.hello
