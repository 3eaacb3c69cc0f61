"""`hearth ingest` against a server that a test plays: what is sent, waited for, removed and reported."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from server.cli.client import Refused
from server.cli.folder import LocalFile
from server.cli.interrupt import Interrupt
from server.cli.sync import Report, Sync
from server.cli.sync_plan import Plan, Sending, StoredFile

FILES = "/v1/vector_stores/vs_1/files"


@dataclass
class FakeServer:
    """Finishes a file when it has been asked `patience` times what is in progress.

    Attributes:
        requests: Method and path of each, in order.
        endings: Status and error code of documents by file name; others complete.
        refused: HTTP status by file name, for the upload.
        used: Ids of files that another store has.
    """

    patience: int = 1
    endings: dict[str, tuple[str, str]] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)
    attributes: dict[str, Any] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def try_upload(self, file: BinaryIO, filename: str) -> dict[str, Any]:
        self.requests.append(f"UPLOAD {filename}")
        if filename in self.refused:
            raise Refused("as the test says", status=self.refused[filename])
        file_id = f"file-{len(self.names)}"
        self.names[file_id] = filename
        return {"id": file_id, "x": {"sha256": hashlib.sha256(file.read()).hexdigest()}}

    def try_request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        expect: tuple[int, ...] = (200,),
    ) -> dict[str, Any]:
        self.requests.append(" ".join([method, path, *(f"{name}={value}" for name, value in (query or {}).items())]))
        file_id = path.rpartition("/")[2]
        if method == "POST" and body is not None:
            self.attributes[body["file_id"]] = body["attributes"]
        if query and file_id in self.used and 409 not in expect:
            raise Refused("another store has it", status=409)
        if method != "GET":
            return {}
        status, code = self.endings.get(self.names[file_id], ("completed", ""))
        error = {"code": code, "message": "as the test says"} if code else None
        return {"id": file_id, "status": status, "last_error": error, "x": {"num_chunks": 2}}

    def try_list(self, _path: str, _query: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        self.requests.append("LIST")
        self.patience -= 1
        if self.patience >= 0:
            yield from ({"id": id_, "x": {"num_chunks": 2, "num_chunks_done": 1}} for id_ in self.names)


@dataclass
class Run:
    """A folder of two files, and what is told of them."""

    server: FakeServer
    sync: Sync
    files: dict[str, LocalFile]
    reports: list[Report]
    shares: list[float]

    def sending(self, path: str, *replaced: str, is_move: bool = False) -> Sending:
        return Sending(self.files[path], replaced, is_move=is_move)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    server, reports, shares = FakeServer(), [], []
    files = {}
    for name in ("a.md", "b.md"):
        (tmp_path / name).write_text(name)
        files[name] = LocalFile(tmp_path / name, name, 4, "as it was")
    sync = Sync(
        server,  # type: ignore[arg-type]  # plays one
        "vs_1",
        "docs",
        Interrupt(),
        reports.append,
        lambda progress: shares.append(progress.cost_done / max(1, progress.total_cost)),
        poll_s=0,
    )
    return Run(server, sync, files, reports, shares)


def test_files_are_sent_with_what_the_next_run_needs_to_know(run: Run) -> None:
    run.sync.run(Plan(sent=[run.sending("a.md")]))

    digest = hashlib.sha256(b"a.md").hexdigest()
    assert run.server.attributes == {"file-0": {"folder": "docs", "path": "a.md", "sha256": digest}}
    assert run.reports == [Report("a.md", "added", "2 chunks")]


def test_the_old_version_goes_when_the_new_one_is_searchable(run: Run) -> None:
    run.sync.run(Plan(sent=[run.sending("a.md", "old"), run.sending("b.md", "older", is_move=True)]))

    assert [report.ending for report in run.reports] == ["changed", "moved"]
    assert run.server.requests.index(f"DELETE {FILES}/old") > run.server.requests.index("LIST")


def test_the_old_version_stays_when_the_new_one_fails(run: Run) -> None:
    run.server.endings = {"a.md": ("failed", "invalid_file"), "b.md": ("failed", "unsupported_file")}

    run.sync.run(Plan(sent=[run.sending("a.md", "old"), run.sending("b.md")]))

    assert [(report.ending, report.detail) for report in run.reports] == [
        ("failed", "as the test says"),
        ("refused", "as the test says"),
    ]
    assert not any(request.startswith("DELETE") for request in run.server.requests)


def test_progress_goes_from_nothing_to_all(run: Run) -> None:
    run.server.patience = 3

    run.sync.run(Plan(sent=[run.sending("a.md"), run.sending("b.md")]))

    assert run.shares[0] == 0 and run.shares[-1] == pytest.approx(1)
    assert run.shares == sorted(run.shares) and 0.5 in run.shares


def test_a_file_that_is_too_large_keeps_nobody_else_waiting(run: Run) -> None:
    run.server.refused = {"a.md": 413}

    run.sync.run(Plan(sent=[run.sending("a.md"), run.sending("b.md")]))

    assert [(report.path, report.ending) for report in run.reports] == [("a.md", "refused"), ("b.md", "added")]


def test_a_full_disk_ends_the_run(run: Run) -> None:
    run.server.refused = {"a.md": 507}

    with pytest.raises(Refused):
        run.sync.run(Plan(sent=[run.sending("a.md"), run.sending("b.md")]))

    assert run.server.requests == ["UPLOAD a.md"]


def test_a_file_that_is_gone_is_reported(run: Run) -> None:
    run.files["a.md"].source.unlink()

    run.sync.run(Plan(sent=[run.sending("a.md")]))

    assert run.reports == [Report("a.md", "failed", "No such file or directory")]


def test_what_was_sent_before_is_waited_for_and_what_is_pruned_is_removed(run: Run) -> None:
    run.server.names["file-9"] = "c.md"
    waiting = StoredFile("file-9", "c.md", "1", "in_progress")
    pruned = StoredFile("file-8", "d.md", "1", "completed")

    run.sync.run(Plan(waited_for=[(waiting, ("old",))], removed=[pruned]))

    assert run.reports == [Report("d.md", "removed"), Report("c.md", "added", "2 chunks")]
    assert run.server.requests[0] == f"DELETE {FILES}/file-8"
    assert run.server.requests[-1] == "DELETE /v1/files/old if_unused=true"


def test_what_is_removed_leaves_this_store_and_stays_where_another_has_it(run: Run) -> None:
    run.server.used = {"file-8"}
    gone = [StoredFile(file_id, "a.md", "1", "completed") for file_id in ("file-8", "file-9")]

    run.sync.run(Plan(removed=gone))

    assert run.server.requests == [
        f"DELETE {FILES}/file-8",
        "DELETE /v1/files/file-8 if_unused=true",
        f"DELETE {FILES}/file-9",
        "DELETE /v1/files/file-9 if_unused=true",
    ]


def test_after_an_interrupt_nothing_more_is_sent(run: Run) -> None:
    run.sync.on_report = lambda _report: None
    run.sync.interrupt.event.set()

    run.sync.run(Plan(sent=[run.sending("a.md")]))

    assert run.server.requests == []
