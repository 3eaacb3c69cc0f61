"""`hearth store` and `hearth reindex`: what they ask of a server that is a function, and what they say."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from server.cli import reindex as reindex_module
from server.cli.main import app

STORE = {"id": "vs_1", "name": "notes", "status": "completed", "file_counts": {"completed": 3}}
STATE = {
    "status": "in_progress",
    "embedding_model": "wide",
    "num_chunks": 4,
    "num_chunks_done": 1,
    "waiting_for": None,
    "last_error": None,
}

Answers = dict[tuple[str, str], Any]
Run = Callable[..., Result]


@pytest.fixture
def answers() -> Answers:
    """By method and path: a body, bytes, or an iterator over bodies."""
    return {("GET", "/v1/vector_stores"): {"data": [STORE], "has_more": False}}


@pytest.fixture
def seen() -> list[httpx.Request]:
    return []


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, answers: Answers, seen: list[httpx.Request], tmp_path: Path) -> Run:
    def answer(request: httpx.Request) -> httpx.Response:
        request.read()
        seen.append(request)
        found = answers[request.method, request.url.path]
        body = next(found) if isinstance(found, Iterator) else found
        if isinstance(body, bytes):
            return httpx.Response(200, content=body)
        return httpx.Response(404 if "error" in body else 200, json=body)

    http = functools.partial(httpx.Client, transport=httpx.MockTransport(answer))
    monkeypatch.setattr("server.cli.client.httpx.Client", http)
    monkeypatch.setattr(reindex_module, "POLL_S", 0)
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, [*arguments, "--url", "http://test"])


def test_a_store_is_written_into_a_file(run: Run, answers: Answers, tmp_path: Path) -> None:
    answers["GET", "/v1/vector_stores/vs_1/export"] = b"HEARTHVS and so on"

    done = run("store", "export", "notes", "notes.hearth")

    assert done.exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["notes.hearth"]
    assert (tmp_path / "notes.hearth").read_bytes() == b"HEARTHVS and so on"


def test_an_export_that_fails_leaves_no_file(run: Run, answers: Answers, tmp_path: Path) -> None:
    answers["GET", "/v1/vector_stores/vs_1/export"] = {"error": {"message": "it has expired"}}

    done = run("store", "export", "notes", "notes.hearth")

    assert (done.exit_code, done.stderr) == (1, "error: it has expired\n")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_is_not_overwritten(run: Run, tmp_path: Path) -> None:
    (tmp_path / "notes.hearth").write_text("mine")

    done = run("store", "export", "notes", "notes.hearth")

    assert (done.exit_code, (tmp_path / "notes.hearth").read_text()) == (1, "mine")
    assert "exists already" in done.stderr


def test_a_store_is_made_of_a_file(run: Run, answers: Answers, seen: list[httpx.Request], tmp_path: Path) -> None:
    answers["POST", "/v1/vector_stores/import"] = STORE
    (tmp_path / "notes.hearth").write_bytes(b"HEARTHVS")

    done = run("store", "import", "notes.hearth", "--name", "copy")

    assert done.stdout == "vs_1  notes: 3 documents\n"
    assert b'name="file"; filename="notes.hearth"' in seen[0].content and b"HEARTHVS" in seen[0].content
    assert b'name="name"\r\n\r\ncopy' in seen[0].content and b"purpose" not in seen[0].content


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("store", "export", "letters", "x"), "there is no vector store named 'letters'"),
        (("store", "import", "nowhere"), "nowhere cannot be read: No such file or directory"),
        (("reindex", "letters"), "there is no vector store named 'letters'"),
    ],
)
def test_what_is_not_there_is_named(run: Run, arguments: tuple[str, ...], error: str) -> None:
    done = run(*arguments)

    assert (done.exit_code, done.stderr.strip()) == (1, f"error: {error}")


def test_a_reindex_is_waited_for(run: Run, answers: Answers, seen: list[httpx.Request]) -> None:
    answers["POST", "/v1/vector_stores/vs_1/reindex"] = STATE
    ended = {**STATE, "status": "completed", "num_chunks_done": 4}
    answers["GET", "/v1/vector_stores/vs_1/reindex"] = iter([STATE, {**STATE, "waiting_for": "loading"}, ended])

    done = run("reindex", "notes", "--model", "wide")

    assert (done.exit_code, done.stdout) == (0, "completed: 4 of 4 chunks, model wide\n")
    assert seen[1].content == b'{"embedding_model":"wide"}'


def test_a_reindex_that_fails_says_why(run: Run, answers: Answers) -> None:
    failed = {**STATE, "status": "failed", "last_error": {"code": "server_error", "message": "the worker died"}}
    answers["POST", "/v1/vector_stores/vs_1/reindex"] = failed

    done = run("reindex", "notes")

    assert (done.exit_code, done.stderr) == (1, "error: the worker died (1 of 4 chunks, model wide)\n")


def test_a_reindex_is_cancelled(run: Run, answers: Answers) -> None:
    answers["POST", "/v1/vector_stores/vs_1/reindex/cancel"] = {**STATE, "status": "cancelled"}

    assert run("reindex", "notes", "--cancel").stdout == "cancelled: 1 of 4 chunks, model wide\n"
