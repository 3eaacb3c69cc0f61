"""The judge of the kill test: a server that lies is found out, and a killed one leaves nobody behind."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from benchmarks.ingest_kill import Check, Findings, kill_tree
from benchmarks.ingest_traffic import Document, Ledger

TEXT = "one two zq1 three"


@dataclass
class FakeServer:
    """Says what a test wants it to say of one document."""

    documents: dict[str, str] = field(default_factory=lambda: {"file-1": "completed"})
    files: list[str] = field(default_factory=lambda: ["file-1"])
    hit: dict[str, Any] = field(default_factory=lambda: hit("file-1", 0, len(TEXT), TEXT))

    def answer(self, request: httpx.Request) -> httpx.Response:
        path, wanted = request.url.path, request.url.params.get("filter")
        if path.endswith("/search"):
            return httpx.Response(200, json={"data": [self.hit]})
        if path == "/v1/files":
            data: list[dict[str, str]] = [{"id": file_id} for file_id in self.files]
        else:
            known = self.documents.items()
            data = [{"id": file_id, "status": status} for file_id, status in known if wanted in (None, status)]
        return httpx.Response(200, json={"data": data, "has_more": False})


def hit(file_id: str, start: int, end: int, text: str) -> dict[str, Any]:
    return {"file_id": file_id, "content": [{"text": text}], "x": {"start": start, "end": end}}


def ledger(**sets: set[str]) -> Ledger:
    everything = {"uploaded": {"file-1"}, "attached": {"file-1"}, "completed": {"file-1"}}
    return Ledger(documents={"file-1": Document("zq1", TEXT)}, **{**everything, **sets})


async def findings_of(server: FakeServer, known: Ledger, folder: Path | None = None) -> dict[str, list[str]]:
    findings = Findings()
    async with httpx.AsyncClient(transport=httpx.MockTransport(server.answer), base_url="http://test") as http:
        check = Check(http, "vs_1", known, findings)
        await check.settle()
        await check.check_lists()
        for file_id in known.owed:
            await check.check_search(file_id)
        if folder is not None:
            check.check_uploads(await check.file_ids(), folder)
    return {name: found for name, found in findings.problems.items() if found}


async def test_an_honest_server_has_no_problems(tmp_path: Path) -> None:
    (tmp_path / "file-1").touch()

    assert await findings_of(FakeServer(), ledger(), tmp_path) == {}


@pytest.mark.parametrize(
    ("server", "known", "problems"),
    [
        (FakeServer(documents={}), ledger(), {"lost": ["file-1", "file-1"]}),
        (FakeServer(files=[]), ledger(), {"lost": ["file-1"]}),
        (FakeServer(documents={"file-1": "failed"}), ledger(), {"lost": ["file-1"], "stuck": ["file-1"]}),
        (FakeServer(hit=hit("file-2", 0, 3, "one")), ledger(), {"lost": ["file-1"]}),
        (FakeServer(hit=hit("file-1", 0, 3, "two")), ledger(), {"wrong": ["file-1", "file-1"]}),
        (FakeServer(), ledger(leaving={"file-1"}, deleted={"file-1"}), {"returned": ["file-1"]}),
        (FakeServer(documents={}, files=[]), ledger(leaving={"file-1"}), {}),  # it may have gone
        (FakeServer(), ledger(leaving={"file-1"}), {}),  # or not
    ],
)
async def test_what_is_not_as_it_was_acknowledged_is_found(
    server: FakeServer, known: Ledger, problems: dict[str, list[str]]
) -> None:
    assert await findings_of(server, known) == problems


async def test_a_file_without_a_record_is_an_orphan(tmp_path: Path) -> None:
    for name in ("file-1", "file-2.part"):
        (tmp_path / name).touch()

    assert await findings_of(FakeServer(), ledger(), tmp_path) == {"orphans": ["file-2.part"]}


def test_a_killed_tree_leaves_nobody_behind() -> None:
    sleeping = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1, flush=True); input()'])"
    parent = psutil.Popen([sys.executable, "-c", sleeping], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with parent.stdin, parent.stdout:
        parent.stdout.readline()  # the child is there
        [child] = parent.children()

        kill_tree(parent)

    assert parent.returncode == -9
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
