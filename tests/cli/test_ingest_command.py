"""`hearth ingest`: what it removes of a server that is a function, and what it never does."""

from __future__ import annotations

import errno
import functools
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from server.cli.main import app

STORE = {"id": "vs_1", "name": "notes", "status": "completed"}
FILES = "/v1/vector_stores/vs_1/files"

Run = Callable[..., Result]


def stored(path: str, content: str) -> dict[str, Any]:
    attributes = {"folder": "docs", "path": path, "sha256": hashlib.sha256(content.encode()).hexdigest()}
    return {"id": f"file-{path}", "status": "completed", "last_error": None, "attributes": attributes}


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    (tmp_path / "docs" / "shut").mkdir(parents=True)
    return tmp_path / "docs"


@pytest.fixture
def documents() -> list[dict[str, Any]]:
    """What the store has of the folder."""
    return [stored("shut/a.txt", "apples"), stored("gone.txt", "pears")]


@pytest.fixture
def removed() -> list[str]:
    """Ids of what was taken out of the store, in order."""
    return []


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, docs: Path, documents: list[dict[str, Any]], removed: list[str]) -> Run:
    def answer(request: httpx.Request) -> httpx.Response:
        method, path = request.method, request.url.path
        lists = {"/v1/vector_stores": [STORE], FILES: documents}
        if method == "GET" and path in lists:
            return httpx.Response(200, json={"data": lists[path], "has_more": False})
        if method == "DELETE" and path.startswith(FILES):
            removed.append(path.removeprefix(f"{FILES}/"))
        return httpx.Response(200 if method == "DELETE" else 422, json={})

    http = functools.partial(httpx.Client, transport=httpx.MockTransport(answer))
    monkeypatch.setattr("server.cli.client.httpx.Client", http)
    return lambda *options: CliRunner().invoke(
        app, ["ingest", str(docs), "--store", "notes", "--url", "http://test", *options]
    )


@pytest.fixture
def shut(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Makes a folder unreadable."""

    def work(folder: Path) -> None:
        scandir = os.scandir

        def refuse(path: str) -> object:
            if Path(path) == folder:
                raise PermissionError(errno.EACCES, "Permission denied", path)
            return scandir(path)

        monkeypatch.setattr(os, "scandir", refuse)

    return work


def test_what_the_folder_has_no_more_is_pruned(run: Run, removed: list[str]) -> None:
    done = run("--prune")

    assert done.exit_code == 0, done.output
    assert removed == ["file-shut/a.txt", "file-gone.txt"]


def test_what_lies_in_a_folder_that_cannot_be_read_is_not_pruned(
    run: Run, docs: Path, shut: Callable[[Path], None], removed: list[str]
) -> None:
    shut(docs / "shut")

    done = run("--prune")

    assert removed == ["file-gone.txt"]
    assert "failed   shut  Permission denied" in done.output
    assert done.exit_code == 1


def test_nothing_is_pruned_when_the_root_cannot_be_read(
    run: Run, docs: Path, shut: Callable[[Path], None], removed: list[str]
) -> None:
    shut(docs)

    done = run("--prune")

    assert removed == []
    assert "failed   .  Permission denied" in done.output


def test_a_copy_of_what_cannot_be_read_is_not_taken_for_its_new_place(
    run: Run, docs: Path, shut: Callable[[Path], None], documents: list[dict[str, Any]], removed: list[str]
) -> None:
    """It is sent, and what lies in the folder stays."""
    (docs / "copy.txt").write_text("apples")
    shut(docs / "shut")

    done = run()

    assert "refused  copy.txt" in done.output  # by this server, which takes no uploads
    assert "moved" not in done.output and removed == []
