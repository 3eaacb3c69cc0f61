from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from server.rag.document_store import DocumentStore
from server.rag.documents import ChunkChange
from server.rag.index_check import check_index
from server.rag.index_keeper import MAX_UNSAVED_S, QUIET_S, IndexKeeper
from server.rag.index_shelf import IndexShelf
from server.rag.store_index import StoreIndex, vectors_file, words_file
from server.storage.data_layout import DataLayout
from server.storage.database import Database
from server.storage.disk_room import RESERVE_BYTES
from tests.fakes.stored_chunks import EAST, NORTH, TENANT, add_document, add_store

T = TypeVar("T")


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Kept:
    """A data directory with what keeps its indexes."""

    folder: Path
    max_bytes: int = 1 << 30
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.layout = DataLayout(self.folder)
        self.database = Database.open(self.layout.database)
        self.documents = DocumentStore(self.database)
        self.shelf = IndexShelf(self.documents, self.layout.indexes, patience_s=5, clock=self.clock)
        self.keeper = IndexKeeper(self.shelf, max_bytes=self.max_bytes, clock=self.clock)
        self.num_files = 0

    async def add(self, store_id: str, num_chunks: int = 1) -> list[int]:
        self.num_files += 1
        file_id = f"file-{store_id}-{self.num_files}-{self.clock.now}"
        change = await add_document(self.documents, store_id, [("x", EAST)] * num_chunks, file_id=file_id)
        self.shelf.apply(change)
        await settled()
        return change.added_ids.tolist()

    async def find(self, store_id: str) -> set[int]:
        return found_in(await self.shelf.index(store_id))

    def state(self, store_id: str) -> str:
        return {check.store_id: check.file for check in check_index(self.folder).stores}[store_id]

    def files(self) -> set[str]:
        return {path.name for path in self.layout.indexes.glob("*")}


def found_in(index: StoreIndex) -> set[int]:
    ids, _ = index.vectors.search(np.array([NORTH], np.float32), 100)
    found = set(ids[ids >= 0].tolist())
    assert set(index.words.search("x", 100)[0].tolist()) == found
    return found


async def settled() -> None:
    """Wait until nobody catches up or merges any more."""
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Kept]:
    kept = Kept(tmp_path)
    yield kept
    await asyncio.to_thread(kept.database.close)


async def test_an_index_that_has_much_changed_is_saved_once_its_store_rests(kept: Kept) -> None:
    store_id = await add_store(kept.documents)
    await kept.find(store_id)
    await kept.add(store_id)

    waits = [await kept.keeper.keep()]
    kept.clock.now += QUIET_S
    states = [kept.state(store_id)]
    waits.append(await kept.keeper.keep())
    states.append(kept.state(store_id))

    assert (waits, states) == ([QUIET_S, None], ["missing", "current"])


async def test_an_index_that_has_little_changed_is_saved_later(kept: Kept) -> None:
    store_id = await add_store(kept.documents)
    await kept.add(store_id, num_chunks=50)
    await kept.find(store_id)
    kept.clock.now += QUIET_S
    await kept.keeper.keep()

    await kept.add(store_id)
    kept.clock.now += QUIET_S
    wait_s = await kept.keeper.keep()
    early = kept.state(store_id)
    kept.clock.now += MAX_UNSAVED_S - QUIET_S
    await kept.keeper.keep()

    assert (wait_s, early, kept.state(store_id)) == (MAX_UNSAVED_S - QUIET_S, "behind", "current")


async def test_a_store_that_never_rests_is_not_written_again_and_again(kept: Kept) -> None:
    store_id = await add_store(kept.documents)
    await kept.find(store_id)

    for _ in range(5):
        kept.clock.now += QUIET_S - 1
        await kept.add(store_id)
        assert await kept.keeper.keep() == QUIET_S

    assert kept.files() == set()


async def test_an_index_that_was_read_from_its_files_is_not_written(kept: Kept) -> None:
    store_id = await add_store(kept.documents)
    await kept.add(store_id)
    await kept.find(store_id)
    await kept.shelf.save_all()

    again = Kept(kept.folder)
    await again.find(store_id)

    assert await again.keeper.keep() is None
    await asyncio.to_thread(again.database.close)


async def test_what_cannot_be_written_is_tried_again_much_later(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store_id = await add_store(kept.documents)
    await kept.add(store_id)
    await kept.find(store_id)
    kept.clock.now += QUIET_S
    monkeypatch.setattr("shutil.disk_usage", lambda _folder: SimpleNamespace(total=1 << 40, free=RESERVE_BYTES))

    wait_s = await kept.keeper.keep()

    assert "index not saved" in caplog.messages
    assert wait_s == MAX_UNSAVED_S


async def test_the_index_that_was_used_longest_ago_leaves_and_comes_back_from_its_file(
    kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    store_ids = [await add_store(kept.documents) for _ in range(3)]
    ids = {store_id: await kept.add(store_id) for store_id in store_ids}
    in_flight = await kept.shelf.index(store_ids[1])
    for store_id in (store_ids[2], store_ids[0]):
        await kept.find(store_id)
    await settled()
    keeper = IndexKeeper(kept.shelf, max_bytes=kept.shelf.num_bytes - 1, clock=kept.clock)

    await keeper.keep()

    assert [kept.shelf.holds(store_id) for store_id in store_ids] == [True, False, True]
    assert kept.state(store_ids[1]) == "current"
    assert found_in(in_flight) == set(ids[store_ids[1]])
    assert await kept.find(store_ids[1]) == set(ids[store_ids[1]])
    assert "index file not used" not in caplog.messages


async def test_the_only_index_stays_however_large(kept: Kept) -> None:
    store_id = await add_store(kept.documents)
    await kept.add(store_id)
    await kept.find(store_id)

    await IndexKeeper(kept.shelf, max_bytes=1, clock=kept.clock).keep()

    assert kept.shelf.holds(store_id)


async def test_whoever_searches_meanwhile_keeps_the_index(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = [await add_store(kept.documents) for _ in range(2)]
    for store_id in (first, second):
        await kept.find(store_id)
    await settled()
    saving, searched = asyncio.Event(), asyncio.Event()
    save = kept.shelf.save

    async def save_during_a_search(store_id: str) -> None:
        saving.set()
        await searched.wait()
        await save(store_id)

    monkeypatch.setattr(kept.shelf, "save", save_during_a_search)

    evicting = asyncio.create_task(kept.shelf.evict(first))
    await saving.wait()
    await kept.find(first)
    searched.set()

    assert await evicting is False and kept.shelf.holds(first)


async def test_files_of_deleted_stores_go_at_once_and_those_of_lost_ones_at_start(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleted, other = [await add_store(kept.documents) for _ in range(2)]
    for store_id in (deleted, other):
        await kept.find(store_id)
    await kept.shelf.save_all()
    await kept.documents.delete_store(TENANT, deleted)
    (kept.layout.indexes / "vs_lost.words").write_bytes(b"odd")
    (kept.layout.indexes / f"{other}.words.part").write_bytes(b"half")

    kept.shelf.drop(deleted)
    await kept.keeper.keep()
    after_drop = kept.files()
    is_kept, keep = asyncio.Event(), kept.keeper.keep

    async def keep_and_tell() -> float | None:
        is_kept.set()
        return await keep()

    monkeypatch.setattr(kept.keeper, "keep", keep_and_tell)
    keeping = asyncio.create_task(kept.keeper.keep_for_ever())
    await is_kept.wait()
    keeping.cancel()
    await asyncio.wait((keeping,))

    mine = {file(kept.folder, other).name for file in (vectors_file, words_file)}
    assert after_drop == {*mine, "vs_lost.words", f"{other}.words.part"}
    assert kept.files() == mine


class KeptMachine(RuleBasedStateMachine):
    """Any sequence of changes, searches, kills, stops and rounds of the keeper; the twin is a set of ids per store."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        self.twin: dict[str, dict[str, set[int]]] = {}

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        async def settle() -> T:
            result = await work
            await settled()
            return result

        return self.loop.run_until_complete(settle())

    def teardown(self) -> None:
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.kept.database.close()
        self.loop.close()
        self.folder.cleanup()

    @initialize(max_bytes=st.sampled_from([1, 60, 120, 10_000]))
    def open(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.kept = self.do(self.opened())

    async def opened(self) -> Kept:
        return Kept(Path(self.folder.name), self.max_bytes)

    def store(self, pick: int) -> str | None:
        return sorted(self.twin)[pick % len(self.twin)] if self.twin else None

    @rule()
    def make_store(self) -> None:
        if len(self.twin) < 4:
            self.twin[self.do(add_store(self.kept.documents))] = {}

    @rule(pick=st.integers(0, 3), num_chunks=st.integers(1, 5))
    def add(self, pick: int, num_chunks: int) -> None:
        if (store_id := self.store(pick)) is not None:
            self.kept.clock.now += 1
            file_id = f"file-{store_id}-{self.kept.clock.now}"
            chunks = [("x", EAST)] * num_chunks
            change = self.do(add_document(self.kept.documents, store_id, chunks, file_id=file_id))
            self.twin[store_id][file_id] = set(change.added_ids.tolist())
            self.do(self.told(change))

    async def told(self, change: ChunkChange) -> None:
        self.kept.shelf.apply(change)

    @rule(pick=st.integers(0, 3))
    def remove(self, pick: int) -> None:
        store_id = self.store(pick)
        if store_id is not None and self.twin[store_id]:
            file_id, _ = self.twin[store_id].popitem()
            self.do(self.told(self.do(self.kept.documents.remove_document(TENANT, store_id, file_id))))

    @rule(pick=st.integers(0, 3))
    def delete_store(self, pick: int) -> None:
        if (store_id := self.store(pick)) is not None:
            self.do(self.kept.documents.delete_store(TENANT, store_id))
            self.kept.shelf.drop(store_id)
            del self.twin[store_id]

    @rule(pick=st.integers(0, 3))
    def search(self, pick: int) -> None:
        if (store_id := self.store(pick)) is not None:
            index = self.do(self.kept.shelf.index(store_id))
            assert found_in(index) == set().union(*self.twin[store_id].values())

    @rule(seconds=st.sampled_from([0, 1, QUIET_S, MAX_UNSAVED_S]))
    def keep(self, seconds: float) -> None:
        self.kept.clock.now += seconds
        self.do(self.kept.keeper.keep())

        held = self.kept.shelf.held()
        assert sum(each.num_bytes for each in held) <= self.max_bytes or len(held) == 1
        assert {name.partition(".")[0] for name in self.kept.files()} <= self.twin.keys()
        if seconds == MAX_UNSAVED_S:
            assert all(self.kept.state(each.store_id) == "current" for each in held)

    @rule(is_killed=st.booleans())
    def restart(self, *, is_killed: bool) -> None:
        if not is_killed:
            self.do(self.kept.shelf.save_all())
        now = self.kept.clock.now
        self.kept.database.close()
        self.kept = self.do(self.opened())
        self.kept.clock.now = now
        self.do(self.kept.shelf.delete_lost())  # as `keep_for_ever` begins

    @invariant()
    def everything_fits_together(self) -> None:
        if hasattr(self, "kept"):
            assert check_index(Path(self.folder.name)).problems == ()


TestAnySequenceLeavesIndexesThatAreRight = KeptMachine.TestCase
TestAnySequenceLeavesIndexesThatAreRight.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)
