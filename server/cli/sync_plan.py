"""What has to be done so that a vector store holds what a folder holds. Does nothing itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from server.cli.folder import LocalFile

RETRIED_ERROR = "server_error"
"""Failures of the server may pass; what is wrong with a file stays wrong until it changes."""


@dataclass(frozen=True)
class StoredFile:
    """A file that was put into the store from this folder, as its attributes tell. `error` is the code of a failure."""

    file_id: str
    path: str
    sha256: str
    status: str
    error: str | None = None

    @classmethod
    def of(cls, document: Mapping[str, Any], folder: str) -> StoredFile | None:
        """Read the server's answer; None for what came from elsewhere."""
        attributes = document["attributes"] or {}
        path, sha256 = attributes.get("path"), attributes.get("sha256")
        if attributes.get("folder") != folder or not isinstance(path, str) or not isinstance(sha256, str):
            return None
        error = document["last_error"]
        return cls(document["id"], path, sha256, document["status"], error["code"] if error else None)

    def attributes(self, folder: str) -> dict[str, str]:
        return {"folder": folder, "path": self.path, "sha256": self.sha256}


@dataclass(frozen=True)
class Sending:
    """A file to send. `replaced` are ids of stored files to remove once it is searchable; of a moved one, the old."""

    file: LocalFile
    replaced: tuple[str, ...] = ()
    is_move: bool = False


@dataclass
class Plan:
    """What to do, in order; a path is in at most one of the first three.

    Attributes:
        waited_for: Sent before, and still in progress; with ids to remove once they are searchable.
        refused: Sent before, and found to be no document; not sent again until they change.
    """

    sent: list[Sending] = field(default_factory=list)
    waited_for: list[tuple[StoredFile, tuple[str, ...]]] = field(default_factory=list)
    refused: list[StoredFile] = field(default_factory=list)
    removed: list[StoredFile] = field(default_factory=list)
    num_unchanged: int = 0


def make_plan(
    local: Mapping[str, LocalFile], stored: Iterable[StoredFile], *, is_pruned: Callable[[str], bool]
) -> Plan:
    """Compare folder and store by path and digest.

    Args:
        is_pruned: Whether to remove what is stored of a path that the folder has no more. A file that was renamed is
            followed in any case.
    """
    plan = Plan()
    by_path: dict[str, list[StoredFile]] = defaultdict(list)
    gone: dict[str, list[StoredFile]] = defaultdict(list)  # by digest
    for each in stored:
        by_path[each.path].append(each)
        if each.path not in local:
            gone[each.sha256].append(each)
    for path, file in local.items():
        _plan_file(plan, file, by_path[path], gone)
    plan.removed += [each for same in gone.values() for each in same if is_pruned(each.path)]
    return plan


def _plan_file(plan: Plan, file: LocalFile, versions: list[StoredFile], gone: dict[str, list[StoredFile]]) -> None:
    """`versions` are what is stored under the file's path: usually one, more after a run that was broken off."""
    same = [each for each in versions if each.sha256 == file.sha256]
    kept = next((each for status in ("completed", "in_progress") for each in same if each.status == status), None)
    others = [each for each in versions if each is not kept]
    if kept is not None and kept.status == "completed":
        plan.num_unchanged += 1
        plan.removed += others
    elif kept is not None:
        plan.waited_for.append((kept, _ids(others)))
    elif refused := [each for each in same if each.status == "failed" and each.error != RETRIED_ERROR]:
        plan.refused.append(refused[0])
    else:
        moved = _take_moved(gone, file.sha256) if not versions else []
        plan.sent.append(Sending(file, _ids([*versions, *moved]), is_move=bool(moved)))


def _take_moved(gone: dict[str, list[StoredFile]], sha256: str) -> list[StoredFile]:
    """Take what is stored of one path with this content out of `gone`; other paths had copies of it, which stay."""
    same = gone.get(sha256, [])
    gone[sha256] = [each for each in same if each.path != same[0].path]
    return [each for each in same if each.path == same[0].path]


def _ids(files: Iterable[StoredFile]) -> tuple[str, ...]:
    return tuple(file.file_id for file in files)
