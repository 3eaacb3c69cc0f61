"""`hearth chat` prints an answer, and what it rests on."""

from __future__ import annotations

import functools
import json
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from server.cli.main import app

STORES = {"data": [{"id": "vs_1", "name": "notes", "status": "completed"}], "has_more": False}


def annotation(number: int, quote: str | None, page: int | None = None) -> dict[str, Any]:
    x = {"number": number, "page": page, "section": "Bread > Dough", "quote": quote}
    return {"type": "file_citation", "filename": "bread.md", "x": x}


def serve(monkeypatch: pytest.MonkeyPatch, *deltas: dict[str, Any]) -> list[dict[str, Any]]:
    """Answer every chat with these; return the requests' bodies as they come."""
    asked: list[dict[str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/vector_stores":
            return httpx.Response(200, json=STORES)
        asked.append(json.loads(request.content))
        chunks = [{"choices": [{"delta": delta}]} for delta in deltas]
        lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
        return httpx.Response(200, text="".join([*lines, "data: [DONE]\n\n"]))

    http = functools.partial(httpx.Client, transport=httpx.MockTransport(answer))
    monkeypatch.setattr("server.cli.client.httpx.Client", http)
    return asked


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["chat", "--url", "http://test", "--model", "m", *arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_an_answer_from_a_store_tells_each_place_once(monkeypatch: pytest.MonkeyPatch) -> None:
    citations = [
        annotation(1, "Knead it."),
        annotation(1, "Let it\nrest."),
        annotation(1, "Knead it."),
        annotation(2, None, 7),
    ]
    asked = serve(monkeypatch, {"content": "Knead [1]."}, {"annotations": citations})

    said = run("--store", "notes", "--top", "3", "What", "now?")

    assert said.splitlines() == [
        "Knead [1].",
        "[1] bread.md: Bread > Dough",
        "    Knead it.",
        "    Let it rest.",
        "[2] bread.md, page 7: Bread > Dough",
    ]
    assert asked[0]["tools"] == [{"type": "file_search", "vector_store_ids": ["vs_1"], "max_num_results": 3}]


def test_without_a_store_nothing_is_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = serve(monkeypatch, {"content": "Hello."})

    assert run("Hi").splitlines() == ["Hello."]
    assert "tools" not in asked[0]


def test_a_store_has_to_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch)

    done = CliRunner().invoke(app, ["chat", "--url", "http://test", "--model", "m", "--store", "other", "Hi"])

    assert done.exit_code == 1
    assert "no vector store named 'other'" in done.output
