"""What `hearth ingest` decides to send and to remove."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from server.cli.folder import LocalFile
from server.cli.sync_plan import Plan, StoredFile, make_plan


def local(**digests: str) -> dict[str, LocalFile]:
    return {path: LocalFile(Path(path), path, 1, digest) for path, digest in digests.items()}


def stored(path: str, digest: str, status: str = "completed", error: str | None = None, id_: str = "") -> StoredFile:
    return StoredFile(id_ or f"file-{path}-{digest}-{status}", path, digest, status, error)


def plan(files: dict[str, LocalFile], *documents: StoredFile, prune: bool = False) -> Plan:
    return make_plan(files, documents, is_pruned=lambda _path: prune)


def test_what_is_stored_as_it_is_is_left_alone() -> None:
    made = plan(local(a="1"), stored("a", "1"))

    assert (made.sent, made.removed, made.num_unchanged) == ([], [], 1)


def test_a_changed_file_is_sent_and_replaces_the_old_one() -> None:
    [sending] = plan(local(a="2"), stored("a", "1")).sent

    assert (sending.file.path, sending.replaced, sending.is_move) == ("a", ("file-a-1-completed",), False)


def test_a_renamed_file_is_sent_and_replaces_the_old_name() -> None:
    made = plan(local(b="1"), stored("a", "1"))

    assert [(each.file.path, each.replaced, each.is_move) for each in made.sent] == [
        ("b", ("file-a-1-completed",), True)
    ]
    assert made.removed == []


def test_a_copy_is_no_move() -> None:
    [sending] = plan(local(a="1", b="1"), stored("a", "1")).sent

    assert (sending.file.path, sending.replaced) == ("b", ())


def test_of_equal_files_that_are_gone_one_has_moved() -> None:
    """The others were copies, which go only with prune."""
    documents = (stored("a", "1"), stored("b", "1"))

    [sending] = plan(local(c="1"), *documents).sent
    assert (sending.replaced, sending.is_move) == (("file-a-1-completed",), True)
    assert plan(local(c="1"), *documents).removed == []
    assert plan(local(c="1"), *documents, prune=True).removed == [stored("b", "1")]
    assert [each.replaced for each in plan(local(c="1", d="1"), *documents).sent] == [
        ("file-a-1-completed",),
        ("file-b-1-completed",),
    ]


def test_a_renamed_file_takes_the_leftovers_of_its_old_name_along() -> None:
    [sending] = plan(local(b="1"), stored("a", "1", id_="x"), stored("a", "1", id_="y")).sent

    assert sending.replaced == ("x", "y")


def test_what_the_folder_has_no_more_goes_only_with_prune() -> None:
    assert plan({}, stored("a", "1")).removed == []
    assert plan({}, stored("a", "1"), prune=True).removed == [stored("a", "1")]


def test_what_is_in_progress_is_waited_for() -> None:
    made = plan(local(a="2"), stored("a", "2", "in_progress"), stored("a", "1"))

    assert made.sent == []
    assert [(file.sha256, replaced) for file, replaced in made.waited_for] == [("2", ("file-a-1-completed",))]


def test_what_was_refused_is_not_sent_again_until_it_changes() -> None:
    refused = stored("a", "1", "failed", "unsupported_file")

    assert plan(local(a="1"), refused).refused == [refused]
    assert [each.replaced for each in plan(local(a="2"), refused).sent] == [(refused.file_id,)]


def test_a_failure_of_the_server_is_tried_again() -> None:
    failed = stored("a", "1", "failed", "server_error")

    assert [each.replaced for each in plan(local(a="1"), failed).sent] == [(failed.file_id,)]


def test_leftovers_of_a_run_that_was_broken_off_are_cleared() -> None:
    made = plan(local(a="1"), stored("a", "1", id_="x"), stored("a", "1", id_="y"), stored("a", "0", id_="z"))

    assert (made.num_unchanged, {file.file_id for file in made.removed}) == (1, {"y", "z"})


def test_only_documents_of_this_folder_are_looked_at() -> None:
    document = {"id": "f", "status": "completed", "last_error": None}
    ours = {"folder": "docs", "path": "a", "sha256": "1"}

    assert StoredFile.of({**document, "attributes": ours}, "docs") == stored("a", "1", id_="f")
    assert StoredFile.of({**document, "attributes": ours}, "other") is None
    assert StoredFile.of({**document, "attributes": {"path": "a"}}, "docs") is None
    assert StoredFile.of({**document, "attributes": None}, "docs") is None


PATHS, DIGESTS = st.sampled_from("abcd"), st.sampled_from("123")
STATUSES = st.sampled_from(["completed", "in_progress", "cancelled"])


@given(st.dictionaries(PATHS, DIGESTS), st.lists(st.tuples(PATHS, DIGESTS, STATUSES), max_size=8), st.booleans())
def test_afterwards_the_store_holds_the_folder(
    files: dict[str, str], documents: list[tuple[str, str, str]], prune: bool
) -> None:
    before = [stored(path, digest, status, id_=str(n)) for n, (path, digest, status) in enumerate(documents)]

    made = make_plan(local(**files), before, is_pruned=lambda _path: prune)

    assert carried_out(made, before, lambda path: path in files) == sorted(files.items())
    if prune:
        assert carried_out(made, before, lambda _path: True) == sorted(files.items())
    removals = [file.file_id for file in made.removed] + [id_ for each in made.sent for id_ in each.replaced]
    assert len(set(removals)) == len(removals)


def carried_out(made: Plan, before: list[StoredFile], is_counted: Callable[[str], bool]) -> list[tuple[str, str]]:
    """Path and digest of what the store holds when all has gone well."""
    gone = {file.file_id for file in made.removed}
    gone |= {id_ for each in made.sent for id_ in each.replaced}
    gone |= {id_ for _, replaced in made.waited_for for id_ in replaced}
    kept = [(file.path, file.sha256) for file in before if file.file_id not in gone and is_counted(file.path)]
    return sorted(kept + [(each.file.path, each.file.sha256) for each in made.sent])
