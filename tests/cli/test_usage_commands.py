"""`hearth usage` and `hearth requests`: what they ask of a server that is a function, and what they say."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from server.cli.main import app

LINE = {
    "model": "talker",
    "sender": None,
    "num_requests": 1234,
    "num_failed": 1,
    "prompt_tokens": 50_000,
    "cached_tokens": 0,
    "completion_tokens": 7,
    "cost": 0.5,
}
REQUEST = {
    "id": "use_1",
    "request_id": "r1",
    "tenant": "ada",
    "key_id": None,
    "model": "[red]talker",
    "path": "/v1/chat/completions",
    "stage": "decode",
    "status": None,
    "age_ms": 2100.0,
    "prompt_tokens": 33,
    "completion_tokens": 107,
}

Run = Callable[..., Result]


@pytest.fixture
def seen() -> list[httpx.Request]:
    return []


@pytest.fixture
def live() -> list[dict[str, Any]]:
    """The requests that the server is doing."""
    return [dict(REQUEST)]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, seen: list[httpx.Request], live: list[dict[str, Any]], tmp_path: Path) -> Run:
    answers: dict[tuple[str, str], Any] = {
        ("GET", "/v1/usage"): {"object": "list", "data": [LINE]},
        ("GET", "/admin/requests"): {
            "object": "list",
            "live": live,
            "recent": [{**REQUEST, "status": "completed"}],
        },
        ("DELETE", "/admin/requests/use_1"): {"id": "use_1", "num_cancelled": 1},
    }

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        found = answers.get((request.method, request.url.path))
        error = {"error": {"message": "no live request has id 'x'; it may be over"}}
        return httpx.Response(404, json=error) if found is None else httpx.Response(200, json=found)

    http = functools.partial(httpx.Client, transport=httpx.MockTransport(answer))
    monkeypatch.setattr("server.cli.client.httpx.Client", http)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, [*arguments, "--url", "http://test"])


def test_usage_is_a_table_of_what_is_asked_for(run: Run, seen: list[httpx.Request]) -> None:
    result = run("usage", "--by", "model,sender", "--from", "2026-01-01")

    assert dict(seen[0].url.params) == {"group_by": "model,sender", "from": "2026-01-01"}
    head, line = result.output.splitlines()
    assert head.split() == ["MODEL", "SENDER", "REQUESTS", "FAILED", "PROMPT", "CACHED", "ANSWERS", "COST"]
    assert line.split() == ["talker", "-", "1,234", "1", "50,000", "0", "7", "0.500000"]


def test_usage_is_the_servers_answer_where_that_is_wanted(run: Run) -> None:
    assert json.loads(run("usage", "--json").output)["data"] == [LINE]


def test_requests_are_listed_live_ones_first(run: Run) -> None:
    _head, live, recent = run("requests").output.splitlines()

    assert live.split() == ["use_1", "[red]talker", "ada", "-", "decode", "2.1", "s", "33", "107"]
    assert recent.split()[4] == "completed"
    assert len(run("requests", "--recent", "0").output.splitlines()) == 2


def test_a_request_is_cancelled(run: Run, seen: list[httpx.Request]) -> None:
    result = run("requests", "--cancel", "use_1")

    assert (seen[0].method, result.output) == ("DELETE", "1 cancelled\n")


def test_the_beginning_of_an_id_will_do(run: Run, seen: list[httpx.Request]) -> None:
    result = run("requests", "--cancel", "use")

    assert (seen[-1].url.path, result.output) == ("/admin/requests/use_1", "1 cancelled\n")


def test_the_beginning_of_several_ids_ends_none_of_them(
    run: Run, seen: list[httpx.Request], live: list[dict[str, Any]]
) -> None:
    live.append({**REQUEST, "id": "use_2"})

    result = run("requests", "--cancel", "use_")

    assert result.exit_code == 1
    assert "2 live requests have ids that begin with 'use_': use_1, use_2" in result.output
    assert {request.url.path for request in seen if request.method == "DELETE"} == {"/admin/requests/use_"}


@pytest.mark.parametrize("columns", ["80", None], ids=["narrow terminal", "pipe"])
def test_ids_and_models_fit_into_their_columns(
    run: Run, live: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, columns: str | None
) -> None:
    long = {"id": f"use_{'0a' * 16}", "model": "smollm2-135m-instruct", "tenant": "default"}
    live[0] |= long
    if columns is None:
        monkeypatch.delenv("COLUMNS")
    else:
        monkeypatch.setenv("COLUMNS", columns)

    line = run("requests", "--recent", "0").output.splitlines()[1]

    assert " ".join(line.split()) == "use_0a0a0a0a smollm2-135m-instruct default - decode 2.1 s 33 107"


def test_what_cannot_be_cancelled_is_an_error(run: Run) -> None:
    result = run("requests", "--cancel", "x")

    assert result.exit_code == 1
    assert "it may be over" in result.output
