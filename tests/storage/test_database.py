import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from server.errors import ObjectNotFound, StorageError, StorageFull
from server.storage import database as database_module
from server.storage.database import Database


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "hearth.db"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    database = Database.open(path)
    yield database
    database.close()


def count(db: sqlite3.Connection) -> int:
    [(number,)] = db.execute("SELECT count(*) FROM removed")
    return number


def add(db: sqlite3.Connection, number: int = 0, size: int = 10) -> None:
    db.execute("INSERT INTO removed (list, id, position) VALUES (?, ?, 0)", ("x" * size, number))


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    half = slice(len(content) // 2, None, 512)
    content[half] = b"\xff" * len(content[half])
    path.write_bytes(content)


async def test_what_was_written_is_read(database: Database) -> None:
    await database.write(add)

    assert await database.read(count) == 1


async def test_what_was_written_is_there_after_a_restart(path: Path) -> None:
    first = Database.open(path)
    await first.write(add)
    first.close()

    second = Database.open(path)
    assert await second.read(count) == 1
    second.close()


async def test_commits_wait_for_the_disk_unless_they_need_not(database: Database) -> None:
    modes = [
        await database.write(lambda db: db.execute("PRAGMA synchronous").fetchall()[0][0], survives_power_cut=survives)
        for survives in (True, False, True)
    ]

    assert modes == [2, 1, 2]  # FULL, NORMAL, FULL


@pytest.mark.parametrize("error", [ObjectNotFound("no such thing"), KeyError("a bug")])
async def test_an_error_takes_everything_back_and_passes_through(database: Database, error: Exception) -> None:
    def work(db: sqlite3.Connection) -> None:
        add(db)
        raise error

    with pytest.raises(type(error)):
        await database.write(work)

    assert await database.read(count) == 0
    await database.write(add)  # the connection is as good as before


async def test_a_read_sees_one_moment(database: Database) -> None:
    has_read, has_written = threading.Event(), threading.Event()

    def read_twice(db: sqlite3.Connection) -> tuple[int, int]:
        before = count(db)
        has_read.set()
        assert has_written.wait(10)
        return before, count(db)

    reading = asyncio.create_task(database.read(read_twice))
    await asyncio.to_thread(has_read.wait, 10)
    await database.write(add)
    has_written.set()

    assert await reading == (0, 0)
    assert await database.read(count) == 1


async def test_readers_cannot_write(database: Database) -> None:
    with pytest.raises(StorageError, match="readonly"):
        await database.read(add)


async def test_reads_go_on_while_a_write_takes_long(database: Database) -> None:
    may_end = threading.Event()
    writing = asyncio.create_task(database.write(lambda _db: may_end.wait(10)))

    assert await database.read(count) == 0

    may_end.set()
    assert await writing


async def test_writes_keep_their_order(database: Database) -> None:
    await asyncio.gather(*(database.write(lambda db, n=n: add(db, n)) for n in range(50)))

    numbers = await database.read(lambda db: db.execute("SELECT id FROM removed ORDER BY row_id").fetchall())
    assert numbers == [(str(n),) for n in range(50)]


async def test_a_full_disk_takes_one_write_back_and_no_more(database: Database) -> None:
    [(num_pages,)] = await database.write(lambda db: db.execute("PRAGMA page_count").fetchall())
    await database.write(lambda db: db.execute(f"PRAGMA max_page_count = {num_pages + 5}").fetchall())
    await database.write(add)

    with pytest.raises(StorageFull):
        await database.write(lambda db: add(db, 1, size=100_000))

    await database.write(lambda db: add(db, 2))  # there is room for a small one
    assert await database.read(count) == 2
    await database.write(lambda db: db.execute("PRAGMA max_page_count = 1000000").fetchall())
    await database.write(lambda db: add(db, 1, size=100_000))
    assert await database.read(count) == 3


@pytest.fixture
def nearly_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _folder: SimpleNamespace(total=1 << 40, free=63 << 20))


def delete_all(db: sqlite3.Connection) -> None:
    db.execute("DELETE FROM removed")


@pytest.mark.usefixtures("nearly_full")
async def test_what_makes_room_may_use_the_last_of_it(database: Database) -> None:
    with pytest.raises(StorageFull, match="only 63 MiB are left"):
        await database.write(add)

    await database.write(add, use_reserve=True)
    await database.write(delete_all, use_reserve=True)

    assert await database.read(count) == 0


@pytest.mark.usefixtures("nearly_full")
async def test_room_inside_the_file_counts(database: Database) -> None:
    await database.write(lambda db: add(db, size=2 << 20), use_reserve=True)
    await database.write(delete_all, use_reserve=True)

    await database.write(add)


async def test_a_held_database_costs_all_who_wait_no_more_than_one_wait(
    database: Database, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_S", 0.3)
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        started_at = asyncio.get_running_loop().time()

        outcomes = await asyncio.gather(*(database.write(add) for _ in range(20)), return_exceptions=True)

        assert asyncio.get_running_loop().time() - started_at < 3  # not 20 times 0.3
        assert [type(outcome) for outcome in outcomes] == [StorageError] * 20
        assert await database.read(count) == 0  # reading goes on
        holder.execute("ROLLBACK")
    await database.write(add)


@pytest.mark.parametrize("content", [b"not a database at all, but long enough to be looked at" * 100, b"SQLite"])
def test_something_else_than_a_database_is_refused(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)

    with pytest.raises(StorageError, match="damaged"):
        Database.open(path)

    assert path.read_bytes() == content


async def test_a_damaged_database_is_refused(path: Path) -> None:
    database = Database.open(path)
    for number in range(200):
        await database.write(lambda db, n=number: add(db, n, size=1000))
    database.close()
    damage(path)

    with pytest.raises(StorageError, match="damaged"):
        Database.open(path)


async def test_nothing_stays_open(path: Path) -> None:
    database = Database.open(path)
    await database.write(add)

    database.close()

    assert [file.name for file in path.parent.iterdir()] == ["hearth.db"]  # the last to close removes the WAL
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("database")]
