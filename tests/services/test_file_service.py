"""Files over a real data directory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from server.errors import Conflict, InvalidRequest, ObjectNotFound, RequestTooLarge, StorageError, StorageUnavailable
from server.services.files import FileService, UploadDetails
from server.services.library import LibraryDoor
from server.services.vector_stores import VectorStoreService
from tests.fakes.library import TENANT, Rig, jobs_done, open_rig

NOW = 1_700_000_000.5


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with open_rig(tmp_path) as rig:
        yield rig


@pytest.fixture
def door(rig: Rig) -> LibraryDoor:
    door = LibraryDoor()
    door.open(rig.library)
    return door


@pytest.fixture
def service(door: LibraryDoor) -> FileService:
    return FileService(door, clock=lambda: NOW)


def details(name: str = "a.txt", expires_after_s: int | None = None) -> UploadDetails:
    return UploadDetails(filename=name, purpose="assistants", expires_after_s=expires_after_s)


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def files_in(folder: Path) -> list[str]:
    return [path.name for path in (folder / "files").iterdir()]


async def test_an_upload_can_be_read_again(service: FileService) -> None:
    record = await service.upload(TENANT, chunks(b"some ", b"text"), details)

    found, path = await service.content(TENANT, record.id)
    assert found == record == await service.get(TENANT, record.id)
    assert (record.num_bytes, record.created_at, record.expires_at) == (9, 1_700_000_000, None)
    assert await asyncio.to_thread(path.read_bytes) == b"some text"


async def test_an_upload_expires_when_its_owner_says_so(service: FileService) -> None:
    record = await service.upload(TENANT, chunks(b"x"), lambda: details(expires_after_s=3600))

    assert record.expires_at == record.created_at + 3600


async def test_ids_cannot_be_guessed(service: FileService) -> None:
    ids = [(await service.upload(TENANT, chunks(b"x"), details)).id for _ in range(2)]

    assert all(len(each) == len("file-") + 24 for each in ids) and len(set(ids)) == 2


async def test_an_upload_whose_fields_are_wrong_leaves_nothing(service: FileService, tmp_path: Path) -> None:
    def refuse() -> UploadDetails:
        raise InvalidRequest("purpose is missing", param="purpose")

    with pytest.raises(InvalidRequest):
        await service.upload(TENANT, chunks(b"x"), refuse)

    assert files_in(tmp_path) == []


async def test_an_upload_that_is_too_large_leaves_nothing(service: FileService, tmp_path: Path) -> None:
    with pytest.raises(RequestTooLarge):
        await service.upload(TENANT, chunks(b"x" * (1 << 20), b"x"), details)

    assert files_in(tmp_path) == []


async def test_a_client_that_goes_away_leaves_nothing(service: FileService, tmp_path: Path) -> None:
    has_begun = asyncio.Event()

    async def stalled() -> AsyncIterator[bytes]:
        yield b"x"
        has_begun.set()
        await asyncio.Event().wait()

    upload = asyncio.create_task(service.upload(TENANT, stalled(), details))
    await has_begun.wait()
    upload.cancel()
    await asyncio.wait((upload,))

    assert files_in(tmp_path) == []


async def test_lists_go_by_purpose(service: FileService) -> None:
    record = await service.upload(TENANT, chunks(b"x"), details)

    assert await service.list(TENANT, purpose="assistants") == ([record], False)
    assert await service.list(TENANT, purpose="batch") == ([], False)


async def test_a_deleted_file_is_gone_from_vector_stores_too(
    service: FileService, door: LibraryDoor, rig: Rig, tmp_path: Path
) -> None:
    record = await service.upload(TENANT, chunks(b"some text"), details)
    stores = VectorStoreService(door, rig.models)
    store = await stores.create(TENANT, file_ids=[record.id])
    await jobs_done()

    await service.delete(TENANT, record.id)

    assert (await stores.get(TENANT, store.id)).counts.total == 0
    assert files_in(tmp_path) == []
    with pytest.raises(ObjectNotFound):
        await service.get(TENANT, record.id)


async def test_a_file_is_deleted_if_unused_only_when_no_store_has_it(
    service: FileService, door: LibraryDoor, rig: Rig
) -> None:
    record = await service.upload(TENANT, chunks(b"some text"), details)
    stores = VectorStoreService(door, rig.models)
    first, second = [await stores.create(TENANT, file_ids=[record.id]) for _ in range(2)]
    await jobs_done()

    await stores.remove_document(TENANT, first.id, record.id)
    with pytest.raises(Conflict, match=f"is in vector store '{second.id}'"):
        await service.delete(TENANT, record.id, if_unused=True)
    assert (await stores.get(TENANT, second.id)).counts.completed == 1

    await stores.delete(TENANT, second.id)  # what it held is swept later
    await service.delete(TENANT, record.id, if_unused=True)
    with pytest.raises(ObjectNotFound):
        await service.get(TENANT, record.id)


async def test_a_file_that_is_deleted_while_it_is_read_leaves_nothing(
    service: FileService, door: LibraryDoor, rig: Rig
) -> None:
    rig.parser.gate = asyncio.Event()
    record = await service.upload(TENANT, chunks(b"some text"), details)
    stores = VectorStoreService(door, rig.models)
    store = await stores.create(TENANT, file_ids=[record.id])
    await rig.parser.begun.get()

    await service.delete(TENANT, record.id)
    await jobs_done()

    assert (await stores.get(TENANT, store.id)).counts.total == 0
    assert rig.embedder.embedded == []


async def test_what_is_anothers_does_not_exist(service: FileService) -> None:
    record = await service.upload(TENANT, chunks(b"x"), details)

    for work in (service.get("eve", record.id), service.content("eve", record.id), service.delete("eve", record.id)):
        with pytest.raises(ObjectNotFound):
            await work
    assert await service.list("eve") == ([], False)


@pytest.mark.parametrize("reason", [None, StorageUnavailable("held by another server")])
async def test_without_a_data_directory_there_are_no_files(reason: StorageError | None) -> None:
    door = LibraryDoor()
    if reason:
        door.shut(reason)

    with pytest.raises(StorageUnavailable, match="not open yet" if reason is None else "another server"):
        await FileService(door).list(TENANT)
