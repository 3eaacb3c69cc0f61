"""The database of keys beside a running server: broken, locked, changed by others."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from server.access import accounts as accounts_module
from server.access import key_store
from server.access.accounts import Accounts
from server.errors import StorageError, StorageUnavailable
from server.storage.database import Database
from server.storage.schema import ACCOUNT_MIGRATIONS
from tests.fakes.keys import key_named

ROOT = Path(__file__).parents[2]
TEXT, KEY = key_named("a")


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts_module, "CHECK_S", 0.01)
    monkeypatch.setattr(accounts_module, "RETRY_S", 0.01)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of a database with one key."""
    path = tmp_path / "data" / "accounts.sqlite"
    database = Database.open(path, ACCOUNT_MIGRATIONS)
    asyncio.run(database.write(lambda db: key_store.insert(db, KEY)))
    database.close()
    return path


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Accounts]:
    accounts = Accounts(path)
    async with accounts.opened():
        yield accounts


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_so():  # noqa: ASYNC110  # what is waited for is told by nothing
            await asyncio.sleep(0.01)


def is_open(accounts: Accounts) -> bool:
    try:
        _ = accounts.database
    except StorageUnavailable:
        return False
    return True


async def test_keys_are_known_once_it_is_open(path: Path) -> None:
    async with opened(path) as accounts:
        assert accounts.ring.has_keys
        assert accounts.ring.find(TEXT) is not None
        assert await accounts.database.read(key_store.select) == [KEY]


async def test_one_that_is_new_has_no_keys(tmp_path: Path) -> None:
    async with opened(tmp_path / "data" / "accounts.sqlite") as accounts:
        assert not accounts.ring.has_keys


async def test_what_another_process_revokes_is_no_more(path: Path) -> None:
    lines = ("import sqlite3, sys", "db = sqlite3.connect(sys.argv[1])", "db.execute('UPDATE keys SET revoked_at = 1')")
    revoke = "\n".join((*lines, "db.commit()"))

    async with opened(path) as accounts:
        before = accounts.ring.find(TEXT)
        done = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", revoke, str(path)], check=False)
        await until(lambda: accounts.ring.find(TEXT) is None)

    assert done.returncode == 0
    assert before is not None
    assert accounts.ring.has_keys


async def test_a_key_that_is_made_meanwhile_is_known(path: Path) -> None:
    text, key = key_named("later")
    async with opened(path) as accounts:
        await accounts.database.write(lambda db: key_store.insert(db, key))

        await until(lambda: accounts.ring.find(text) is not None)

        assert accounts.ring.find(text) == key.caller


async def test_known_keys_stay_while_another_program_holds_the_database(path: Path) -> None:
    async with opened(path) as accounts:
        with closing(sqlite3.connect(path, isolation_level=None)) as holder:
            holder.execute("BEGIN EXCLUSIVE")

            assert accounts.ring.find(TEXT) is not None


async def test_known_keys_stay_when_reading_fails(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(path) as accounts:

        def fail(_db: sqlite3.Connection) -> int:
            raise StorageError("the disk is gone")

        monkeypatch.setattr(key_store, "change_number", fail)
        await until(lambda: "keys cannot be read" in caplog.text)

        assert accounts.ring.find(TEXT) is not None


async def test_a_bug_does_not_make_keys_good_for_ever(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(path) as accounts:
        with monkeypatch.context() as patch:
            patch.setattr(key_store, "change_number", _raise_bug)
            await until(lambda: "keys cannot be read" in caplog.text)
        was_good = accounts.ring.find(TEXT) is not None
        await accounts.database.write(lambda db: key_store.revoke(db, KEY.id, now=1))
        await until(lambda: accounts.ring.find(TEXT) is None)

        assert was_good and accounts.ring.find(TEXT) is None


async def test_a_bug_while_it_is_opened_lets_nobody_in_until_it_is_tried_again(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(key_store, "select", _raise_bug)
        async with opened(path) as accounts:
            assert not accounts.ring.is_read
            assert "a bug" in caplog.text
            patch.undo()

            await until(lambda: accounts.ring.find(TEXT) is not None)


def _raise_bug(_db: sqlite3.Connection) -> int:
    raise RuntimeError("a bug")


async def test_keys_do_not_wait_for_usage_to_be_looked_through(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Years of it take long. Nothing is written there before that is done, and what is revoked meanwhile is refused."""
    may_check = asyncio.Event()
    real_check = Database.check

    async def check_slowly(database: Database) -> None:
        await may_check.wait()
        await real_check(database)

    monkeypatch.setattr(Database, "check", check_slowly)
    monkeypatch.setattr(accounts_module, "OPENING_S", 0.01)

    async with opened(path) as accounts:
        await until(lambda: accounts.ring.is_read and accounts.ring.find(TEXT) is not None)
        assert not is_open(accounts)
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("UPDATE keys SET revoked_at = 1")
        await until(lambda: accounts.ring.find(TEXT) is None)

        may_check.set()
        await until(lambda: is_open(accounts))


async def test_damaged_usage_is_not_written_to_and_keys_stay(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        [(page,)] = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'usage'")
        [(size,)] = db.execute("PRAGMA page_size")
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)

    async with opened(path) as accounts:
        assert accounts.ring.find(TEXT) is not None
        assert not is_open(accounts)
    assert any("the database is damaged" in getattr(record, "reason", "") for record in caplog.records)


async def test_a_damaged_file_lets_nobody_in(tmp_path: Path) -> None:
    path = tmp_path / "accounts.sqlite"
    path.write_bytes(b"not a database" * 1000)

    async with opened(path) as accounts:
        with pytest.raises(StorageUnavailable, match="log says why"):
            _ = accounts.ring.has_keys
        with pytest.raises(StorageUnavailable):
            _ = accounts.database


async def test_one_that_is_repaired_is_opened(tmp_path: Path, path: Path) -> None:
    broken = tmp_path / "accounts.sqlite"
    broken.write_bytes(b"not a database" * 1000)

    async with opened(broken) as accounts:
        await asyncio.to_thread(path.rename, broken)

        await until(lambda: accounts.ring.is_read)
        assert accounts.ring.find(TEXT) is not None


async def test_where_no_file_can_be_there_are_no_keys(tmp_path: Path) -> None:
    """A data directory that cannot be made stops nothing but what needs it; see tests/test_app.py."""
    (tmp_path / "file").write_text("in the way")

    async with opened(tmp_path / "file" / "accounts.sqlite") as accounts:
        assert not accounts.ring.has_keys


async def test_a_start_does_not_wait_for_ever(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_open = Database.open
    gate = asyncio.Event()
    loop = asyncio.get_running_loop()

    def open_slowly(path: Path, migrations: str, *, checked_table: str) -> Database:
        asyncio.run_coroutine_threadsafe(gate.wait(), loop).result(10)
        return real_open(path, migrations, checked_table=checked_table)

    monkeypatch.setattr(Database, "open", open_slowly)
    monkeypatch.setattr(accounts_module, "OPENING_S", 0.01)

    async with opened(path) as accounts:
        with pytest.raises(StorageUnavailable, match="not read yet"):
            _ = accounts.ring.has_keys
        gate.set()
        await until(lambda: accounts.ring.is_read)
