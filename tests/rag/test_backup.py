"""Backups of data directories in use, and what is made of them."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path

import pytest

from server.access import key_store
from server.errors import StorageError
from server.rag import backup as backup_module
from server.rag.backup import back_up, restore
from server.rag.index_check import check_index
from server.rag.retriever import Retriever
from server.rag.rows.stores import NOBODY
from server.services.files import FileService, UploadDetails
from server.services.library import LibraryDoor
from server.storage.data_layout import DataLayout
from server.storage.data_lock import data_lock
from server.storage.database import Database
from server.storage.schema import ACCOUNT_MIGRATIONS
from tests.fakes.keys import key_named
from tests.fakes.library import SMALL_CHUNKS, TENANT, Rig, jobs_done, open_rig


async def fill(rig: Rig, *texts: str) -> str:
    store = await rig.add_store()
    new = [(await rig.add_file(text), {}, SMALL_CHUNKS) for text in texts]
    rig.library.ingestion.submit(TENANT, await rig.documents.add_documents(TENANT, store.id, new))
    await jobs_done()
    return store.id


async def found(rig: Rig, store_id: str, query: str) -> list[str]:
    retriever = Retriever(rig.documents, rig.library.shelf, rig.embedder, None)
    return [hit.chunk.text for hit in (await retriever.search(TENANT, [store_id], [query])).hits]


async def one(content: bytes) -> AsyncIterator[bytes]:
    yield content


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory with two files, which nobody uses."""

    async def make() -> None:
        async with open_rig(tmp_path / "data") as rig:
            await fill(rig, "apples", "pears")

    asyncio.run(make())
    return tmp_path / "data"


@pytest.fixture
def made(data: Path, tmp_path: Path) -> Path:
    """A backup of it."""
    back_up(data, tmp_path / "backup")
    return tmp_path / "backup"


# ---- making


async def test_a_restored_backup_is_searched_as_before(tmp_path: Path) -> None:
    async with open_rig(tmp_path / "data") as rig:
        store_id = await fill(rig, "apples and pears", "plums")
        before = await found(rig, store_id, "plums")
        await asyncio.to_thread(back_up, tmp_path / "data", tmp_path / "backup")

    await asyncio.to_thread(restore, tmp_path / "backup", tmp_path / "other")

    async with open_rig(tmp_path / "other") as rig:
        assert await found(rig, store_id, "plums") == before != []
        assert rig.library.files.path("file-1").read_text() == "apples and pears"


async def test_a_backup_is_of_one_moment_while_documents_come_and_go(tmp_path: Path) -> None:
    async with open_rig(tmp_path / "data") as rig:
        first = [f"the first text, number {number}" for number in range(10)]
        store_id = await fill(rig, *first)

        door = LibraryDoor()
        door.open(rig.library)
        files = FileService(door)
        details = UploadDetails(filename="a.txt", purpose="assistants")

        async def go_on() -> None:
            for number in range(20):
                file = await files.upload(TENANT, one(b"another text, number %d" % number), lambda: details)
                new = [(file.id, {}, SMALL_CHUNKS)]
                rig.library.ingestion.submit(TENANT, await rig.documents.add_documents(TENANT, store_id, new))
                if number % 2:
                    await files.delete(TENANT, file.id)

        going_on = asyncio.create_task(go_on())
        await asyncio.to_thread(back_up, tmp_path / "data", tmp_path / "backup")
        await going_on

    await asyncio.to_thread(restore, tmp_path / "backup", tmp_path / "other")

    report = await asyncio.to_thread(check_index, tmp_path / "other")
    assert report.problems == ()
    async with open_rig(tmp_path / "other") as rig:
        assert (await rig.documents.store(TENANT, store_id)).counts.completed >= 10
        assert await rig.documents.file_ids() == names(tmp_path / "other" / "files")


def test_a_backup_says_what_it_is(data: Path, tmp_path: Path) -> None:
    made = back_up(data, tmp_path / "backup")

    assert names(tmp_path / "backup") == {"hearth.sqlite", "files", "backup.json"}
    assert json.loads((tmp_path / "backup" / "backup.json").read_text())["num_files"] == made.num_files == 2
    assert (tmp_path / "backup").stat().st_mode & 0o777 == 0o700


def test_files_take_no_room_twice_where_that_is_possible(made: Path, data: Path) -> None:
    assert all((made / "files" / name).samefile(data / "files" / name) for name in names(data / "files"))
    assert not (made / "hearth.sqlite").samefile(data / "hearth.sqlite")


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EPERM])
def test_files_are_copied_where_they_cannot_be_linked(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)

    assert back_up(data, tmp_path / "backup").num_files == 2


def test_a_server_that_was_killed_has_left_its_last_changes_in_the_log(tmp_path: Path) -> None:
    async def make() -> None:
        async with open_rig(tmp_path / "data") as rig:
            await fill(rig, "apples")
            shutil.copytree(tmp_path / "data", tmp_path / "killed", ignore=shutil.ignore_patterns("*-shm"))

    asyncio.run(make())
    assert (tmp_path / "killed" / "hearth.sqlite-wal").stat().st_size > 0

    assert back_up(tmp_path / "killed", tmp_path / "backup").num_files == 1


def after_each(call: Callable[..., None], then: Callable[[int], None]) -> Callable[..., None]:
    number = 0

    def wrapped(*arguments: object) -> None:
        nonlocal number
        call(*arguments)
        number += 1
        then(number)

    return wrapped


def test_a_file_that_comes_and_goes_during_the_backup_is_not_in_it(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uploaded after files were taken, and deleted after the database was."""
    with closing(sqlite3.connect(data / "hearth.sqlite", isolation_level=None)) as db:
        taken = backup_module._take_all

        def take_and_upload(source: Path, target: Path) -> None:
            taken(source, target)
            db.execute(
                "INSERT INTO files (id, tenant, filename, purpose, num_bytes, sha256, created_at) "
                "VALUES ('file-late', 'ada', 'a', 'assistants', 1, 'x', 1)"
            )

        def delete(number: int) -> None:
            if number == 1:
                db.execute("DELETE FROM files WHERE id = 'file-late'")

        monkeypatch.setattr(backup_module, "_take_all", take_and_upload)
        monkeypatch.setattr(backup_module, "_copy_database", after_each(backup_module._copy_database, delete))

        assert back_up(data, tmp_path / "backup").num_files == 2
        assert names(tmp_path / "backup" / "files") == {"file-1", "file-2"}


def test_a_file_that_is_deleted_during_the_backup_is_in_it_if_the_database_still_knows_it(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def delete(_number: int) -> None:
        (data / "files" / "file-1").unlink()

    monkeypatch.setattr(backup_module, "_copy_database", after_each(backup_module._copy_database, delete))

    assert back_up(data, tmp_path / "backup").num_files == 2


def test_a_file_that_is_deleted_just_before_it_is_copied_is_not_in_the_backup(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copyfile = shutil.copyfile

    def delete_and_copy(source: Path, target: Path) -> Path:
        if source.name == "file-1":
            with closing(sqlite3.connect(data / "hearth.sqlite", isolation_level=None)) as db:
                db.execute("DELETE FROM files WHERE id = 'file-1'")
            source.unlink()
        return copyfile(source, target)

    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(shutil, "copyfile", delete_and_copy)

    assert back_up(data, tmp_path / "backup").num_files == 1
    assert names(tmp_path / "backup" / "files") == {"file-2"}


async def test_half_an_import_is_left_out(tmp_path: Path) -> None:
    async with open_rig(tmp_path / "data") as rig:
        await fill(rig, "apples")
        with closing(sqlite3.connect(tmp_path / "data" / "hearth.sqlite", isolation_level=None)) as db:
            db.execute("UPDATE files SET tenant = ?", (NOBODY,))

        made = await asyncio.to_thread(back_up, tmp_path / "data", tmp_path / "backup")

    assert (made.num_files, names(tmp_path / "backup" / "files")) == (0, set())


# ---- what cannot be made leaves nothing


def refusal(work: Callable[[], object]) -> str:
    with pytest.raises(StorageError) as refused:
        work()
    return refused.value.message


def test_a_file_that_was_lost_or_damaged_is_named(data: Path, tmp_path: Path) -> None:
    (data / "files" / "file-1").write_text("applez")
    assert "file-1 is damaged" in refusal(lambda: back_up(data, tmp_path / "backup"))

    (data / "files" / "file-1").unlink()
    assert "the bytes of file-1 are not in" in refusal(lambda: back_up(data, tmp_path / "backup"))

    assert names(tmp_path) == {"data"}


def test_a_damaged_database_is_not_backed_up(data: Path, tmp_path: Path) -> None:
    content = bytearray((data / "hearth.sqlite").read_bytes())
    content[len(content) // 2 :: 512] = b"\xff" * len(content[len(content) // 2 :: 512])
    (data / "hearth.sqlite").write_bytes(content)

    assert "malformed" in refusal(lambda: back_up(data, tmp_path / "backup"))
    assert names(tmp_path) == {"data"}


@pytest.mark.parametrize("where", ["_sync", "_copy_database"])
def test_a_full_disk_leaves_nothing_half(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "somewhere")

    monkeypatch.setattr(backup_module, where, refuse)

    assert "No space left on device" in refusal(lambda: back_up(data, tmp_path / "backup"))
    assert names(tmp_path) == {"data"}


def test_a_folder_that_is_there_is_never_touched(data: Path, tmp_path: Path) -> None:
    (tmp_path / "backup").mkdir()
    (tmp_path / "other.part").mkdir()

    assert "exists already" in refusal(lambda: back_up(data, tmp_path / "backup"))
    assert "another backup is being made, or was broken off" in refusal(lambda: back_up(data, tmp_path / "other"))
    assert "is inside" in refusal(lambda: back_up(data, data / "backup"))
    assert "there is no database" in refusal(lambda: back_up(tmp_path, tmp_path / "backup2"))
    assert (tmp_path / "other.part").exists()


# ---- restoring


def test_a_data_directory_that_is_not_empty_is_left_alone(made: Path, data: Path) -> None:
    before = (data / "hearth.sqlite").read_bytes()

    assert "is not empty" in refusal(lambda: restore(made, data))
    assert (data / "hearth.sqlite").read_bytes() == before


def test_what_is_replaced_is_kept(made: Path, data: Path) -> None:
    old = names(data)
    (data / "files" / "file-3").write_text("later")

    kept = restore(made, data, replace=True)

    assert kept is not None and kept.parent == data
    assert names(kept) == old - {"lock"}
    assert (kept / "files" / "file-3").exists()
    assert names(data) == {"lock", "hearth.sqlite", "files", kept.name}
    assert names(data / "files") == {"file-1", "file-2"}


def test_a_second_restore_leaves_what_the_first_has_kept(
    made: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = restore(made, data, replace=True)
    monkeypatch.setattr("time.strftime", lambda *_: "later")

    second = restore(made, data, replace=True)

    assert first is not None and second is not None
    assert {first.name, second.name} < names(data)


def test_a_data_directory_in_use_is_refused(made: Path, tmp_path: Path) -> None:
    with data_lock(tmp_path / "other"):
        message = refusal(lambda: restore(made, tmp_path / "other", replace=True))

    assert f"in use by another server (process {os.getpid()})" in message
    assert names(tmp_path / "other") == {"lock"}


def test_a_restored_database_is_no_part_of_the_backup(made: Path, tmp_path: Path) -> None:
    """It will be written to."""
    restore(made, tmp_path / "other")

    assert not (made / "hearth.sqlite").samefile(tmp_path / "other" / "hearth.sqlite")


def test_what_a_killed_restore_has_left_does_not_disturb(made: Path, tmp_path: Path) -> None:
    (tmp_path / "other" / "restore.part" / "files").mkdir(parents=True)

    assert restore(made, tmp_path / "other") is None
    assert names(tmp_path / "other") == {"lock", "hearth.sqlite", "files"}


def test_a_backup_that_is_not_whole_is_refused_before_anything_changes(made: Path, data: Path, tmp_path: Path) -> None:
    def damage(name: str, change: Callable[[Path], object]) -> str:
        copy = tmp_path / "damaged"
        shutil.copytree(made, copy)
        change(copy / name)
        message = refusal(lambda: restore(copy, tmp_path / "other"))
        shutil.rmtree(copy)
        return message

    assert "is no backup" in damage("backup.json", Path.unlink)
    assert "is no backup" in damage("backup.json", lambda path: path.write_text("[]"))
    assert "cannot be restored" in damage("hearth.sqlite", Path.unlink)
    assert "cannot be restored" in damage("hearth.sqlite", lambda path: path.write_bytes(b"not a database" * 100))
    assert "cannot be restored" in damage("files/file-1", Path.unlink)
    assert "is damaged" in damage("files/file-1", lambda path: path.write_text("applez"))
    assert "is not what its backup.json says" in damage("hearth.sqlite", _touch)
    assert names(tmp_path / "other") <= {"lock"}


def _touch(database: Path) -> None:
    with closing(sqlite3.connect(database)) as db:
        db.execute("UPDATE vector_stores SET name = 'changed'")
        db.commit()
        db.execute("PRAGMA journal_mode = DELETE")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 9999}, r"was written by a newer Hearth \(schema 9999; this one knows up to"),
        ({"version": 2, "hearth": "9.9"}, "has version 2 but this Hearth reads 1; use Hearth 9.9"),
    ],
)
def test_a_backup_of_a_newer_version_is_refused(
    made: Path, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    path = made / "backup.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))

    with pytest.raises(StorageError, match=message):
        restore(made, tmp_path / "other")

    assert not (tmp_path / "other").exists()


def test_a_move_that_fails_is_undone(made: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = names(data)
    rename = Path.rename

    def refuse_the_new_database(path: Path, target: Path) -> Path:
        if path.parent.name == "restore.part" and target == DataLayout(data).database:
            raise OSError(errno.EIO, "Input/output error", str(target))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse_the_new_database)

    assert "Input/output error" in refusal(lambda: restore(made, data, replace=True))
    assert names(data) == before | {"lock"}
    assert names(data / "files") == {"file-1", "file-2"}


# ---- keys


def add_key(data_dir: Path, name: str) -> None:
    database = Database.open(DataLayout(data_dir).accounts, ACCOUNT_MIGRATIONS)
    asyncio.run(database.write(lambda db: key_store.insert(db, key_named(name)[1])))
    database.close()


def keys_in(data_dir: Path) -> list[str]:
    with closing(sqlite3.connect(DataLayout(data_dir).accounts)) as db:
        return [name for (name,) in db.execute("SELECT name FROM keys ORDER BY name")]


def test_keys_are_part_of_a_backup(data: Path, tmp_path: Path) -> None:
    add_key(data, "kept")

    made = back_up(data, tmp_path / "backup")
    restore(tmp_path / "backup", tmp_path / "other")

    assert made.has_accounts
    assert keys_in(tmp_path / "other") == ["kept"]
    assert DataLayout(tmp_path / "other").accounts.stat().st_mode & 0o777 == 0o600


def test_restored_keys_take_the_place_of_those_there(data: Path, tmp_path: Path) -> None:
    add_key(data, "old")
    back_up(data, tmp_path / "backup")
    add_key(data, "newer")

    kept = restore(tmp_path / "backup", data, replace=True)

    assert keys_in(data) == ["old"]
    assert kept is not None and keys_in(kept) == ["newer", "old"]


def test_a_backup_without_keys_leaves_those_there(made: Path, data: Path) -> None:
    """Or it would open a server to everybody."""
    add_key(data, "kept")

    restore(made, data, replace=True)

    assert keys_in(data) == ["kept"]


def test_damaged_keys_are_not_restored(data: Path, tmp_path: Path) -> None:
    add_key(data, "kept")
    back_up(data, tmp_path / "backup")
    with closing(sqlite3.connect(tmp_path / "backup" / "accounts.sqlite")) as db:
        db.execute("UPDATE keys SET tenant = 'other'")
        db.commit()
        db.execute("PRAGMA journal_mode = DELETE")

    with pytest.raises(StorageError, match=r"is not what its backup\.json says"):
        restore(tmp_path / "backup", tmp_path / "other")

    assert names(tmp_path / "other") == {"lock"}
