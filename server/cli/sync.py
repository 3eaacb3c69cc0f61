"""Carry out a plan: send files, wait until they are searchable, remove what they replace, and report on each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from server.cli.client import Refused, ServerClient
from server.cli.interrupt import Interrupt
from server.cli.sync_plan import Plan, Sending, StoredFile

MAX_PENDING = 200
"""Files that the server has not finished yet; then no more are sent, so that little is left over when it stops."""

FILE_COST_BYTES = 2000
"""What a file costs besides its contents, in bytes that could be embedded meanwhile; for the estimate of the end."""

OK = 200
NOT_FOUND = 404
CONFLICT = 409

Ending = Literal["added", "changed", "moved", "removed", "refused", "failed"]


@dataclass
class Pending:
    """A file that the server works on. `share_done` is 0 to 1."""

    stored: StoredFile
    ending: Ending
    replaced: tuple[str, ...]
    cost: int
    share_done: float = 0.0


@dataclass(frozen=True)
class Report:
    """What became of one file; `detail` is for people."""

    path: str
    ending: Ending
    detail: str = ""


@dataclass
class Progress:
    """How far a run is. Costs are in bytes; see `FILE_COST_BYTES`."""

    num_files: int
    total_cost: int
    num_done: int = 0
    cost_done: float = 0.0


@dataclass
class Sync:
    """One store and one folder.

    Attributes:
        folder: The name under which the store knows the folder.
        on_report: Told of each file that has ended.
        on_progress: Told whenever something has moved.
        poll_s: Between two questions of how far the server is.
    """

    client: ServerClient
    store_id: str
    folder: str
    interrupt: Interrupt
    on_report: Callable[[Report], None]
    on_progress: Callable[[Progress], None]
    poll_s: float = 0.5
    _pending: dict[str, Pending] = field(default_factory=dict)  # by file id

    def stored(self) -> list[StoredFile]:
        """What the store has of this folder."""
        documents = self.client.try_list(self._files())
        return [file for document in documents if (file := StoredFile.of(document, self.folder))]

    def run(self, plan: Plan) -> None:
        """Do what is planned, until it is done or interrupted.

        Raises:
            ServerFailure: The server cannot go on; what was sent before is not lost.
        """
        self._pending = {}
        costs = [each.file.num_bytes + FILE_COST_BYTES for each in plan.sent]
        num_files = len(plan.sent) + len(plan.waited_for)
        self._progress = Progress(num_files, sum(costs) + FILE_COST_BYTES * len(plan.waited_for))
        self.on_progress(self._progress)
        self._remove([file.file_id for file in plan.removed])
        for file in plan.removed:
            self.on_report(Report(file.path, "removed"))
        for file, replaced in plan.waited_for:
            self._pending[file.file_id] = Pending(file, "added", replaced, FILE_COST_BYTES)
        polled_at = time.monotonic()
        for sending, cost in zip(plan.sent, costs, strict=True):
            while len(self._pending) >= MAX_PENDING and not self.interrupt.is_asked:
                self._wait()
            if self.interrupt.is_asked:
                return
            self._send(sending, cost)
            if time.monotonic() - polled_at > self.poll_s:
                self._poll()
                polled_at = time.monotonic()
        while self._pending and not self.interrupt.is_asked:
            self._wait()

    def _wait(self) -> None:
        self.interrupt.event.wait(self.poll_s)
        self._poll()

    def _send(self, sending: Sending, cost: int) -> None:
        file = sending.file
        ending: Ending = "moved" if sending.is_move else "changed" if sending.replaced else "added"
        try:
            with file.source.open("rb") as content:
                uploaded = self.client.try_upload(content, file.path)
        except OSError as exc:
            self._end(file.path, "failed", cost, exc.strerror or type(exc).__name__)
            return
        except Refused as exc:
            self._refuse(file.path, cost, exc)
            return
        # The digest is of what has arrived, for the file may have changed since it was read.
        stored = StoredFile(uploaded["id"], file.path, uploaded["x"]["sha256"], "in_progress")
        body = {"file_id": stored.file_id, "attributes": stored.attributes(self.folder)}
        try:
            self.client.try_request("POST", self._files(), body)
        except Refused as exc:
            self._remove([stored.file_id])
            self._refuse(file.path, cost, exc)
            return
        self._pending[stored.file_id] = Pending(stored, ending, sending.replaced, cost)

    def _refuse(self, path: str, cost: int, exc: Refused) -> None:
        """A file that is too large or oddly named concerns nobody else; an error of the server ends the run."""
        if exc.status >= 500 or exc.status == NOT_FOUND:
            raise exc
        self._end(path, "refused", cost, str(exc))

    def _poll(self) -> None:
        """Ask what is still in progress; what is not any more has ended."""
        documents = self.client.try_list(self._files(), {"filter": "in_progress"})
        in_progress = {document["id"]: document["x"] for document in documents}
        for file_id, pending in list(self._pending.items()):
            progress = in_progress.get(file_id)
            if progress is None:
                self._finish(file_id, pending)
            elif progress["num_chunks"]:
                share = progress["num_chunks_done"] / progress["num_chunks"]
                self._progress.cost_done += (share - pending.share_done) * pending.cost
                pending.share_done = share
        self.on_progress(self._progress)

    def _finish(self, file_id: str, pending: Pending) -> None:
        del self._pending[file_id]
        cost = pending.cost * (1 - pending.share_done)
        try:
            document = self.client.try_request("GET", f"{self._files()}/{file_id}")
        except Refused as exc:
            if exc.status != NOT_FOUND:
                raise
            self._end(pending.stored.path, "failed", cost, "it was removed by somebody else")
            return
        if document["status"] == "completed":
            self._remove(pending.replaced)
            num_chunks = document["x"]["num_chunks"]
            self._end(pending.stored.path, pending.ending, cost, f"{num_chunks} chunk{'s' * (num_chunks != 1)}")
        else:
            self._end(pending.stored.path, *_failure(document, cost))

    def _remove(self, file_ids: Iterable[str]) -> None:
        """Take files out of the store, and delete those that no other store has."""
        for file_id in file_ids:
            self.client.try_request("DELETE", f"{self._files()}/{file_id}", expect=(OK, NOT_FOUND))
            self.client.try_request(
                "DELETE", f"/v1/files/{file_id}", query={"if_unused": "true"}, expect=(OK, NOT_FOUND, CONFLICT)
            )

    def _end(self, path: str, ending: Ending, cost: float, detail: str) -> None:
        self._progress.num_done += 1
        self._progress.cost_done += cost
        self.on_report(Report(path, ending, detail))
        self.on_progress(self._progress)

    def _files(self) -> str:
        return f"/v1/vector_stores/{self.store_id}/files"


def _failure(document: dict[str, Any], cost: float) -> tuple[Ending, float, str]:
    error = document["last_error"]
    if error is None:
        return "failed", cost, document["status"]
    return "refused" if error["code"] == "unsupported_file" else "failed", cost, error["message"]
