"""Answers that the client begins, with the real server: by the small model, and by a script."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.integration.live_models import CHAT

pytestmark = pytest.mark.integration

ASKED: list[dict[str, Any]] = [
    {"role": "user", "content": "What is the capital of France?"},
    {"role": "assistant", "content": "The capital of France is"},
]


def answer(http: httpx.Client, **more: object) -> dict[str, Any]:
    body = {"model": CHAT, "messages": ASKED, "temperature": 0, "max_tokens": 16, **more}
    response = http.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    choice: dict[str, Any] = response.json()["choices"][0]
    return choice


def test_the_model_goes_on_where_the_message_ends(http: httpx.Client) -> None:
    assert answer(http)["message"]["content"].startswith(" Paris")
    assert answer(http, continue_final_message=True, add_generation_prompt=False) == answer(http)


def test_a_form_is_that_of_what_follows(http: httpx.Client) -> None:
    choice = answer(http, grammar={"type": "regex", "definition": " Paris\\."})

    assert (choice["message"]["content"], choice["finish_reason"]) == (" Paris.", "stop")


def test_a_script_answers_what_the_user_said(http: httpx.Client) -> None:
    choice = answer(http, model="script")

    assert choice["message"]["content"] == f"you said {ASKED[0]['content']}"
