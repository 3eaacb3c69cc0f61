from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from server.errors import ObjectNotFound, StorageError
from server.services import expiry
from server.services.expiry import expire, expire_for_ever
from server.storage.response_store import RETENTION_S, StoredResponse
from tests.fakes.library import SMALL_CHUNKS, TENANT, jobs_done, open_rig

DAY_S = 86_400


async def test_files_past_their_time_are_gone_everywhere(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        store = await rig.add_store()
        file_id = await rig.add_file("apples", expires_at=100)
        rig.library.ingestion.submit(
            TENANT, await rig.documents.add_documents(TENANT, store.id, [(file_id, {}, SMALL_CHUNKS)])
        )
        await jobs_done()

        await expire(rig.library, now=99)
        assert (await rig.documents.store(TENANT, store.id)).counts.completed == 1

        await expire(rig.library, now=100)
        assert (await rig.documents.store(TENANT, store.id)).counts.total == 0
        assert list((tmp_path / "files").iterdir()) == []


async def test_a_job_of_a_file_that_expires_is_stopped(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        rig.parser.gate = asyncio.Event()
        store = await rig.add_store()
        file_id = await rig.add_file("apples", expires_at=100)
        rig.library.ingestion.submit(
            TENANT, await rig.documents.add_documents(TENANT, store.id, [(file_id, {}, SMALL_CHUNKS)])
        )
        await rig.parser.begun.get()

        await expire(rig.library, now=100)
        await jobs_done()

        assert rig.embedder.embedded == []


async def test_nothing_comes_into_a_store_that_has_expired(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        rig.parser.gate = asyncio.Event()
        store = await rig.documents.create_store(
            TENANT, embedding_model="m", fingerprint="f1", dimensions=2, chunking=SMALL_CHUNKS, expires_after_days=1
        )
        added = await rig.documents.add_documents(TENANT, store.id, [(await rig.add_file("a"), {}, SMALL_CHUNKS)])
        rig.library.ingestion.submit(TENANT, added)
        await rig.parser.begun.get()

        await expire(rig.library, now=store.last_active_at + 2 * DAY_S)
        rig.parser.gate.set()
        await jobs_done()

        expired = await rig.documents.store(TENANT, store.id)
        assert (expired.is_expired, expired.counts.completed, expired.usage_bytes) == (True, 0, 0)


async def test_responses_past_their_time_are_gone(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        kept = StoredResponse(id="resp_1", previous_id=None, created_at=1, body="{}", inputs=(), outputs=())
        await rig.library.responses.add(TENANT, kept)
        now = int(time.time())

        await expire(rig.library, now=now)
        assert await rig.library.responses.get(TENANT, "resp_1") == ("{}", [])

        await expire(rig.library, now=now + 1 + RETENTION_S)
        with pytest.raises(ObjectNotFound):
            await rig.library.responses.get(TENANT, "resp_1")


async def test_a_file_that_cannot_be_removed_keeps_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_rig(tmp_path) as rig:
        for text in ("apples", "pears"):
            await rig.add_file(text, expires_at=100)
        response = StoredResponse(id="resp_1", previous_id=None, created_at=1, body="{}", inputs=(), outputs=())
        await rig.library.responses.add(TENANT, response)
        delete = rig.library.files.delete

        async def refuse_the_first(file_id: str) -> None:
            if file_id == "file-1":
                raise StorageError("an I/O error")
            await delete(file_id)

        monkeypatch.setattr(rig.library.files, "delete", refuse_the_first)

        await expire(rig.library, now=int(time.time()) + 1 + RETENTION_S)

        assert [path.name for path in (tmp_path / "files").iterdir()] == ["file-1"]
        assert await rig.documents.file_ids() == set()
        assert "bytes of an expired file stay" in caplog.text
        with pytest.raises(ObjectNotFound):
            await rig.library.responses.get(TENANT, "resp_1")


async def test_it_goes_on_whatever_happens(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    errors: list[Exception] = [StorageError("the disk is full"), RuntimeError("a bug")]
    has_worked = asyncio.Event()

    async def fail_at_first(_library: object, *, now: int) -> None:
        assert now > 0
        if errors:
            raise errors.pop(0)
        has_worked.set()

    monkeypatch.setattr(expiry, "expire", fail_at_first)
    monkeypatch.setattr(expiry, "INTERVAL_S", 0)

    running = asyncio.create_task(expire_for_ever(None))  # type: ignore[arg-type]  # `expire` alone looks at it
    await has_worked.wait()
    running.cancel()
    await asyncio.wait((running,))

    assert "a bug" in caplog.text
