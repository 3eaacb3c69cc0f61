"""`hearth ingest` and `hearth search`, as a user runs them, against the real server."""

from __future__ import annotations

import queue
import re
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from benchmarks.server_process import HEARTH, ServerProcess, environment
from tests.integration.conftest import RunHearth
from tests.integration.live_models import EMBEDDING

pytestmark = pytest.mark.integration

BREAD = "# Bread\n\n## Dough\n\nKnead the dough for ten minutes.\n"
LINE_S = 60.0
"""How long a line of a watching command may take."""


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    (folder / "kitchen").mkdir(parents=True)
    (folder / "kitchen" / "bread.md").write_text(BREAD)
    (folder / "garden.md").write_text("# Tomatoes\n\nTomatoes want full sun.\n")
    (folder / "ships.txt").write_text("The lighthouse keeper lit the lamp.\n")
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7\nnothing more")
    (folder / "photo.png").write_bytes(b"\x89PNG")
    (folder / ".hidden.md").write_text("secret")
    return folder


@pytest.fixture
def store(http: httpx.Client) -> Iterator[str]:
    """A name that no store has yet; afterwards nothing of it is left."""
    name = f"docs {uuid.uuid4().hex}"
    yield name
    for each in http.get("/v1/vector_stores?limit=100").json()["data"]:
        if each["name"] == name:
            for document in http.get(f"/v1/vector_stores/{each['id']}/files?limit=100").json()["data"]:
                http.delete(f"/v1/files/{document['id']}")
            http.delete(f"/v1/vector_stores/{each['id']}")


def results(stdout: str) -> dict[str, str]:
    """What became of each file, by path."""
    lines = [line.split() for line in stdout.splitlines()]
    return {words[1]: words[0] for words in lines if len(words) > 1 and words[0].isalpha()}


def test_a_folder_is_ingested_and_found(
    live_server: ServerProcess, run_hearth: RunHearth, docs: Path, store: str
) -> None:
    done = run_hearth("ingest", str(docs), "--store", store, "--url", live_server.url)
    found = run_hearth("search", store, "How long do I knead dough?", "--url", live_server.url, "--top", "1")

    assert results(done.stdout) == {
        "kitchen/bread.md": "added",
        "garden.md": "added",
        "ships.txt": "added",
        "broken.pdf": "failed",
    }
    assert done.returncode == 1  # for the broken one
    assert re.match(r"[01]\.\d{3}  kitchen/bread\.md: Bread > Dough\n +.*Knead the dough", found.stdout)


def test_a_second_run_sends_only_what_is_new_or_changed(
    live_server: ServerProcess, run_hearth: RunHearth, docs: Path, store: str
) -> None:
    command = ("ingest", str(docs), "--store", store, "--url", live_server.url)
    run_hearth(*command)
    (docs / "garden.md").write_text("# Tomatoes\n\nAnd basil.\n")
    (docs / "ships.txt").rename(docs / "kitchen" / "ships.txt")
    (docs / "kitchen" / "bread.md").unlink()

    second, third = run_hearth(*command), run_hearth(*command, "--prune")
    fourth = run_hearth(*command)

    assert results(second.stdout) == {"garden.md": "changed", "kitchen/ships.txt": "moved"}
    assert results(third.stdout) == {"kitchen/bread.md": "removed"}
    assert fourth.stdout == "1 refused before, 2 unchanged\n" and fourth.returncode == 0


def test_another_folder_in_the_same_store_is_left_alone(
    live_server: ServerProcess, run_hearth: RunHearth, docs: Path, store: str
) -> None:
    url = ("--url", live_server.url)
    run_hearth("ingest", str(docs / "kitchen"), "--store", store, *url)

    done = run_hearth("ingest", str(docs), "--store", store, "--label", "all", "--prune", *url)

    assert "removed" not in results(done.stdout).values()


def test_watch_follows_new_changed_moved_and_deleted_files(live_server: ServerProcess, docs: Path, store: str) -> None:
    (docs / "broken.pdf").unlink()
    with Watching(docs, store, live_server.url) as watching:
        watching.wait_for("watching ")
        (docs / "new.md").write_text("# Owls\n\nOwls hunt at night.\n")
        watching.wait_for("added    new.md")
        (docs / "new.md").write_text("# Owls\n\nOwls hunt at dusk.\n")
        watching.wait_for("changed  new.md")
        before = num_embedded(live_server)
        (docs / "new.md").rename(docs / "owls.md")
        watching.wait_for("moved    owls.md")
        assert num_embedded(live_server) == before
        (docs / "owls.md").unlink()
        watching.wait_for("removed  owls.md")

        assert watching.stop() == 0


def test_the_wrong_folder_and_the_wrong_store_are_told(
    live_server: ServerProcess, run_hearth: RunHearth, docs: Path
) -> None:
    no_folder = run_hearth("ingest", str(docs / "none"), "--store", "x", "--url", live_server.url)
    no_store = run_hearth("search", "no such store", "x", "--url", live_server.url)
    no_id = run_hearth("ingest", str(docs), "--store", "vs_none", "--url", live_server.url)

    assert no_folder.returncode == 2
    assert no_store.stderr.startswith("error: there is no vector store named 'no such store'")
    assert no_id.stderr.startswith("error: there is no vector store 'vs_none'")


class Watching:
    """A running `hearth ingest --watch`, whose lines are read as they come."""

    def __init__(self, folder: Path, store: str, url: str) -> None:
        command = [HEARTH, "ingest", str(folder), "--store", store, "--url", url, "--watch"]
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment() | {"PYTHONUNBUFFERED": "1"},
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> Watching:
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join()

    def wait_for(self, beginning: str) -> None:
        seen = []
        while not (line := self._next(seen)).startswith(beginning):
            seen.append(line)

    def stop(self) -> int:
        self._process.send_signal(signal.SIGINT)
        return self._process.wait(LINE_S)

    def _next(self, seen: list[str]) -> str:
        try:
            return self._lines.get(timeout=LINE_S)
        except queue.Empty:
            raise AssertionError(f"no such line; there were {seen}") from None

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stdout:
            for line in stdout:
                self._lines.put(line)


def num_embedded(server: ServerProcess) -> int:
    """How many items the embedding model has computed, once that has come to rest: its worker tells once a second."""
    known = -1
    while (now := int(server.models()[EMBEDDING]["encoded"]["num_items"])) != known:
        known = now
        time.sleep(2.5)
    return known
