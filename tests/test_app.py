"""The application as it is joined, with its data directory; the models are never loaded."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from server.app import build_app
from server.config.schema import HearthConfig, Limits, ModelConfig, ScriptRule, ServerSettings
from server.models.weights import WeightsStore

ACTOR = ModelConfig(id="actor", kind="chat", backend="script", script=(ScriptRule(text="hi"),), lazy=True)


@asynccontextmanager
async def serving(data_dir: Path) -> AsyncIterator[httpx.AsyncClient]:
    server = ServerSettings(data_dir=data_dir, limits=Limits(max_upload_mb=1))
    app = build_app(HearthConfig(server=server, models=(ACTOR,)), WeightsStore(data_dir / "weights", data_dir))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
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


async def test_a_damaged_database_stops_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "hearth.sqlite").write_bytes(b"not a database" * 1000)

    async with serving(tmp_path / "data") as client:
        refused = await client.get("/v1/files")

    assert refused.status_code == 503
    assert any("the database is damaged" in getattr(record, "reason", "") for record in caplog.records)
