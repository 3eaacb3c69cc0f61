from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from server.access import key_store
from server.caller import KeyLimits
from server.errors import ObjectNotFound, StorageError
from server.storage.database import Database
from server.storage.schema import ACCOUNT_MIGRATIONS
from tests.fakes.keys import key_named

_, KEY = key_named(
    "a",
    tenant="bakery",
    scopes=frozenset({"inference", "rag"}),
    models=frozenset({"talker"}),
    limits=KeyLimits(requests_per_minute=5, cost_per_day=1.5),
    expires_at=1_800_000_000,
)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database.open(tmp_path / "accounts.sqlite", ACCOUNT_MIGRATIONS)
    yield database
    await asyncio.to_thread(database.close)


async def test_a_key_is_found_as_it_was_made(database: Database) -> None:
    await database.write(lambda db: key_store.insert(db, KEY))

    assert await database.read(lambda db: key_store.find(db, KEY.id)) == KEY
    assert await database.read(key_store.select) == [KEY]


async def test_the_key_itself_is_nowhere_in_the_file(database: Database, tmp_path: Path) -> None:
    text, key = key_named("secret")
    await database.write(lambda db: key_store.insert(db, key))

    files = await asyncio.to_thread(lambda: [path.read_bytes() for path in tmp_path.iterdir()])

    assert any(key.digest in content for content in files)
    assert not any(text.encode() in content for content in files)


async def test_the_first_revocation_counts(database: Database) -> None:
    await database.write(lambda db: key_store.insert(db, KEY))

    first = await database.write(lambda db: key_store.revoke(db, KEY.id, now=10))
    second = await database.write(lambda db: key_store.revoke(db, KEY.id, now=20))

    assert first.revoked_at == second.revoked_at == 10


@pytest.mark.parametrize(("at", "expected"), [(50, 50), (1_900_000_000, 1_800_000_000)])
async def test_an_end_is_only_brought_forward(database: Database, at: int, expected: int) -> None:
    await database.write(lambda db: key_store.insert(db, KEY))

    await database.write(lambda db: key_store.end_by(db, KEY.id, at=at))

    assert (await database.read(lambda db: key_store.find(db, KEY.id))).expires_at == expected


async def test_what_is_not_there_is_said_so(database: Database) -> None:
    with pytest.raises(ObjectNotFound, match="key_nowhere"):
        await database.write(lambda db: key_store.revoke(db, "key_nowhere", now=1))


async def test_every_change_of_a_key_is_noticed_and_nothing_else(database: Database) -> None:
    numbers = [await database.read(key_store.change_number)]
    await database.write(lambda db: key_store.insert(db, KEY))
    numbers.append(await database.read(key_store.change_number))
    await database.write(lambda db: key_store.revoke(db, KEY.id, now=1))
    numbers.append(await database.read(key_store.change_number))
    await database.write(lambda db: db.execute("CREATE TABLE ledger (tokens INTEGER)"))
    numbers.append(await database.read(key_store.change_number))

    assert len(set(numbers[:3])) == 3
    assert numbers[3] == numbers[2]


async def test_a_row_that_cannot_be_read_is_no_key_that_may_nothing(database: Database) -> None:
    await database.write(lambda db: key_store.insert(db, KEY))
    await database.write(lambda db: db.execute("UPDATE keys SET scopes = '[\"everything\"]'"))

    with pytest.raises(StorageError, match="key_a"):
        await database.read(key_store.select)
