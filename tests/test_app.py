"""The application as it is joined, with its data directory; the models are never loaded."""

from __future__ import annotations

import asyncio
import stat
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from server import opened_library
from server.access import key_store
from server.app import build_app
from server.config.schema import HearthConfig, ModelConfig
from server.config.script_section import ScriptRule
from server.config.server_section import Limits, ServerSettings
from server.errors import StorageFull
from server.models.weights import WeightsStore
from server.storage.data_layout import DataLayout
from server.storage.database import Database
from server.storage.schema import ACCOUNT_MIGRATIONS
from tests.fakes.keys import key_named

REAL_OPEN = Database.open

ACTOR = ModelConfig(id="actor", kind="chat", backend="script", script=(ScriptRule(text="hi"),), lazy=True)


@asynccontextmanager
async def serving(data_dir: Path) -> AsyncIterator[httpx.AsyncClient]:
    server = ServerSettings(data_dir=data_dir, limits=Limits(max_upload_mb=1))
    hearth = build_app(HearthConfig(server=server, models=(ACTOR,)), WeightsStore(data_dir / "weights", data_dir))
    transport = httpx.ASGITransport(hearth)
    async with (
        hearth.router.lifespan_context(hearth),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
    ):
        yield client


async def upload(client: httpx.AsyncClient, content: bytes = b"some text") -> httpx.Response:
    return await client.post("/v1/files", data={"purpose": "assistants"}, files={"file": ("a.txt", content)})


async def test_a_file_outlives_the_server(tmp_path: Path) -> None:
    async with serving(tmp_path / "data") as client:
        uploaded = (await upload(client)).json()

    async with serving(tmp_path / "data") as client:
        content = await client.get(f"/v1/files/{uploaded['id']}/content")

    assert content.content == b"some text"


async def test_the_data_directory_is_its_owners_alone(tmp_path: Path) -> None:
    async with serving(tmp_path / "data"):
        mode = await asyncio.to_thread((tmp_path / "data").stat)

    assert stat.S_IMODE(mode.st_mode) == 0o700


async def test_bytes_without_a_record_are_swept_at_start(tmp_path: Path) -> None:
    lost = tmp_path / "data" / "files" / "file-lost.part"
    lost.parent.mkdir(parents=True)
    lost.write_bytes(b"half an upload")

    async with serving(tmp_path / "data"):
        assert not lost.exists()


async def test_uploads_are_bounded(tmp_path: Path) -> None:
    async with serving(tmp_path / "data") as client:
        response = await upload(client, b"x" * ((1 << 20) + 1))

    assert response.status_code == 413


async def test_a_data_directory_that_another_server_holds_stops_nothing_else(tmp_path: Path) -> None:
    async with serving(tmp_path / "data") as first, serving(tmp_path / "data") as second:
        refused, models, served = await upload(second), await second.get("/v1/models"), await upload(first)

    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "storage_unavailable")
    assert str(tmp_path) not in refused.text
    assert (models.status_code, served.status_code) == (200, 200)


@pytest.mark.parametrize("path", ["file/data", "file"])
async def test_one_that_cannot_be_made_stops_nothing_else(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("in the way")

    async with serving(tmp_path / path) as client:
        refused, models = await client.get("/v1/vector_stores"), await client.get("/v1/models")

    assert (refused.status_code, models.status_code) == (503, 200)


async def test_a_disk_that_was_full_at_the_start_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[Exception] = [StorageFull("no room is left"), StorageFull("no room is left")]

    def open_database(path: Path, *migrations: str, **more: Any) -> Database:
        if errors and path.name == "hearth.sqlite":
            raise errors.pop(0)
        return REAL_OPEN(path, *migrations, **more)

    monkeypatch.setattr(Database, "open", open_database)
    monkeypatch.setattr(opened_library, "RETRY_S", 0.01)

    async with serving(tmp_path / "data") as client, asyncio.timeout(10):
        first = await client.get("/v1/files")
        while (last := await client.get("/v1/files")).status_code != 200:
            assert (last.status_code, last.json()["error"]["code"]) == (507, "storage_full")
            await asyncio.sleep(0.05)  # whoever asks without pause keeps the interpreter from those who open it

    assert first.status_code == 507
    assert errors == []


async def test_models_do_not_wait_for_a_data_directory_that_takes_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_open = threading.Event()

    def open_database(path: Path, *migrations: str, **more: Any) -> Database:
        assert path.name != "hearth.sqlite" or may_open.wait(10)
        return REAL_OPEN(path, *migrations, **more)

    monkeypatch.setattr(Database, "open", open_database)
    monkeypatch.setattr(opened_library, "OPENING_S", 0)

    async with serving(tmp_path / "data") as client, asyncio.timeout(10):
        refused, models = await client.get("/v1/files"), await client.get("/v1/models")
        may_open.set()
        while (last := await client.get("/v1/files")).status_code != 200:
            assert last.status_code == 503
            await asyncio.sleep(0.05)  # as above

    assert (refused.status_code, models.status_code) == (503, 200)


async def test_a_stop_waits_for_a_database_that_is_being_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be brought to a new schema just then: the lock must be held until it is closed."""
    may_open = threading.Event()
    closed: list[Database] = []

    def open_database(path: Path, *migrations: str, **more: Any) -> Database:
        assert path.name != "hearth.sqlite" or may_open.wait(10)
        return REAL_OPEN(path, *migrations, **more)

    real_close = Database.close
    monkeypatch.setattr(Database, "open", open_database)
    monkeypatch.setattr(Database, "close", lambda database: (real_close(database), closed.append(database)))
    monkeypatch.setattr(opened_library, "OPENING_S", 0)

    async with serving(tmp_path / "data"):
        asyncio.get_running_loop().call_later(0.01, may_open.set)

    assert len(closed) == 2  # keys as well


async def test_a_damaged_database_stops_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "hearth.sqlite").write_bytes(b"not a database" * 1000)

    async with serving(tmp_path / "data") as client:
        refused = await client.get("/v1/files")

    assert refused.status_code == 503
    assert any("the database is damaged" in getattr(record, "reason", "") for record in caplog.records)


# ---- keys


def add_key(data_dir: Path) -> str:
    text, key = key_named("a")
    database = Database.open(DataLayout(data_dir).accounts, ACCOUNT_MIGRATIONS)
    asyncio.run(database.write(lambda db: key_store.insert(db, key)))
    database.close()
    return text


async def test_keys_of_the_data_directory_are_asked_for(tmp_path: Path) -> None:
    key = await asyncio.to_thread(add_key, tmp_path / "data")

    async with serving(tmp_path / "data") as client:
        without = await client.get("/v1/models")
        response = await client.get("/v1/models", headers={"x-api-key": key})

    assert (without.status_code, response.status_code) == (401, 200)


async def test_keys_that_cannot_be_read_let_nobody_in_but_the_server_lives(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "accounts.sqlite").write_bytes(b"not a database" * 1000)

    async with serving(tmp_path / "data") as client:
        health, models, files = [await client.get(path) for path in ("/health", "/v1/models", "/v1/files")]

    assert (health.status_code, models.status_code, files.status_code) == (200, 503, 503)
    assert models.json()["error"]["code"] == "storage_unavailable"
    assert str(tmp_path) not in models.text


async def test_a_full_disk_is_not_taken_for_lost_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was only begun has no keys in it."""

    def open_database(path: Path, *migrations: str, **more: Any) -> Database:
        if path.name == "accounts.sqlite":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            raise StorageFull("no room is left")
        return REAL_OPEN(path, *migrations, **more)

    monkeypatch.setattr(Database, "open", open_database)

    async with serving(tmp_path / "data") as client:
        assert (await client.get("/v1/models")).status_code == 200


async def test_a_name_that_is_not_this_machines_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path / "data") as client:
        response = await client.get("/v1/models", headers={"host": "evil.example"})

    assert (response.status_code, response.json()["error"]["code"]) == (403, "host_not_allowed")
