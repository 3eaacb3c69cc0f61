"""Everything at once over the same few files: afterwards files, rows, indexes and answers agree."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from server.errors import ObjectNotFound
from server.rag.index_check import check_index
from server.rag.search import SearchOptions
from server.rag.upload_check import check_uploads
from server.services.files import FileService
from server.services.library import LibraryDoor
from server.services.vector_stores import VectorStoreService
from tests.fakes.library import SMALL_CHUNKS, TENANT, Rig, jobs_done, open_rig

TEXTS = ("apples pears plums", "apples figs dates", "grapes melons limes")


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with open_rig(tmp_path, max_running=3) as rig:
        yield rig


class Mob:
    """Callers who know nothing of each other."""

    def __init__(self, rig: Rig, dice: random.Random, store_ids: list[str], file_ids: list[str]) -> None:
        door = LibraryDoor()
        door.open(rig.library)
        self.stores, self.files = VectorStoreService(door, rig.models), FileService(door)
        self._dice, self._store_ids, self._file_ids = dice, store_ids, file_ids

    async def act(self) -> None:
        store_id, file_id = self._dice.choice(self._store_ids), self._dice.choice(self._file_ids)
        action = self._dice.choices(("add", "remove", "search", "delete"), (6, 3, 4, 1))[0]
        with suppress(ObjectNotFound):
            if action == "add":
                await self.stores.add_file(TENANT, store_id, file_id, chunking=SMALL_CHUNKS)
            elif action == "remove":
                await self.stores.remove_document(TENANT, store_id, file_id)
            elif action == "delete":
                await self.files.delete(TENANT, file_id)
            else:
                await self.stores.search(TENANT, store_id, ["apples"], SearchOptions())

    async def found(self, store_id: str) -> set[str]:
        """Files that a search finds by what all of their chunks have: a vector."""
        options = SearchOptions(max_results=50, text_weight=0)
        outcome = await self.stores.search(TENANT, store_id, ["anything"], options)
        return {hit.chunk.file_id for hit in outcome.hits}


@pytest.mark.parametrize("seed", range(5))
async def test_whatever_happens_at_once_all_agree_in_the_end(rig: Rig, tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    file_ids = [await rig.add_file(text) for text in TEXTS]
    store_ids = [(await rig.add_store()).id for _ in range(2)]
    mob = Mob(rig, dice, store_ids, file_ids)

    for _ in range(10):
        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(mob.act())
    await jobs_done()

    for store_id in store_ids:
        documents, _ = await mob.stores.documents(TENANT, store_id)
        assert {document.status for document in documents} <= {"completed"}
        assert await mob.found(store_id) == {document.file_id for document in documents}
        index = await rig.library.shelf.index(store_id)
        _, ids, _ = await rig.documents.vectors(store_id)
        assert index.vectors.num_chunks == len(ids) == len(np.unique(ids))
    await rig.library.shelf.save_all()
    assert check_index(tmp_path).problems == ()
    assert check_uploads(tmp_path) == []
