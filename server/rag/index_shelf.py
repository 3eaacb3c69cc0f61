"""The indexes of vector stores in memory, each made when it is first asked for and kept in step with its store.

SQLite says what is in a store; `index_maker.py` makes an index of it. Afterwards the index follows the store's changes,
whose generations have no gaps: `index` waits for what was committed before it was asked, so that a search finds
whatever a client has been told of. Should a change never be told, e.g. because whoever committed it was cancelled, the
index is made again.

All methods belong to the event loop; the work is done in threads. When to save an index, and which one to let go of,
`index_keeper.py` decides.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from server.errors import ObjectNotFound, StorageError
from server.rag.document_store import DocumentStore
from server.rag.documents import ChunkChange
from server.rag.index_maker import IndexMaker, MadeIndex, return_memory
from server.rag.store_index import StoreIndex, VectorSwap

logger = logging.getLogger(__name__)

PATIENCE_S = 1.0
"""How long a change may be on its way from its commit to `apply`, before the index is made without it."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """An index in memory. Times are of the shelf's clock.

    Attributes:
        last_use: Larger than that of all indexes that were asked for earlier.
        num_unsaved: Rows that were added or removed since its files were written.
        unsaved_since: When the first change was that they lack; None: they have all.
        changed_at: When the last one was.
    """

    store_id: str
    num_bytes: int
    num_chunks: int
    last_use: int
    num_unsaved: int
    unsaved_since: float | None
    changed_at: float


@dataclass(eq=False)
class _Shelved:
    """One store's index, None until it is made; changes that it has not taken over yet, by generation."""

    store_id: str
    index: StoreIndex | None = None
    changes: dict[int, ChunkChange | VectorSwap] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    catching_up: asyncio.Task[None] | None = None
    merging: asyncio.Task[None] | None = None
    last_use: int = 0
    num_unsaved: int = 0
    unsaved_since: float | None = None
    changed_at: float = 0.0

    def note_change(self, num_rows: int, now: float) -> None:
        self.num_unsaved += num_rows
        self.unsaved_since = now if self.unsaved_since is None else self.unsaved_since
        self.changed_at = now

    @property
    def is_busy(self) -> bool:
        return any(task is not None and not task.done() for task in (self.catching_up, self.merging))


class IndexShelf:
    """All indexes of this process. `documents` is asked for what they hold, `folder` is theirs alone."""

    def __init__(
        self,
        documents: DocumentStore,
        folder: Path,
        *,
        patience_s: float = PATIENCE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.is_changed = asyncio.Event()
        """Set when an index has come, grown or gone; whoever waits for that clears it."""
        self._documents = documents
        self._maker = IndexMaker(documents, folder)
        self._patience_s = patience_s
        self._clock = clock
        self._shelved: dict[str, _Shelved] = {}
        self._dropped: set[str] = set()  # their files are to be deleted
        self._uses = itertools.count(1)

    async def index(self, store_id: str) -> StoreIndex:
        """Return the index of a store, with all that is committed by now.

        Raises:
            ObjectNotFound: No such store.
            StorageError: The database cannot be read.
        """
        return await self.at_least(store_id, await self._documents.generation(store_id))

    async def at_least(self, store_id: str, generation: int) -> StoreIndex:
        """Return the index once it has reached a generation, which is committed. Errors as of `index`.

        It stays as it is for whoever holds it, but follows its store only as long as it is on the shelf.
        """
        while True:
            shelved = self._shelved.setdefault(store_id, _Shelved(store_id))
            shelved.last_use = next(self._uses)
            if shelved.index is not None and shelved.index.generation >= generation:
                return shelved.index
            await asyncio.shield(self._catch_up(shelved, generation))

    def holds(self, store_id: str) -> bool:
        """Whether there is an index of a store in memory, or one is being made."""
        return store_id in self._shelved

    def held(self) -> list[Held]:
        """List the indexes in memory."""
        return [
            Held(
                store_id=each.store_id,
                num_bytes=each.index.num_bytes,
                num_chunks=each.index.vectors.num_chunks,
                last_use=each.last_use,
                num_unsaved=each.num_unsaved,
                unsaved_since=each.unsaved_since,
                changed_at=each.changed_at,
            )
            for each in self._shelved.values()
            if each.index is not None
        ]

    @property
    def num_bytes(self) -> int:
        """Memory of all that is searched."""
        return sum(held.num_bytes for held in self.held())

    def apply(self, change: ChunkChange | VectorSwap) -> None:
        """Take note of a committed change; returns at once. Nothing to do for a store that nobody has searched."""
        shelved = self._shelved.get(change.store_id)
        if shelved is not None:
            shelved.changes[change.generation] = change
            shelved.changed.set()
            self._catch_up(shelved, change.generation)

    def drop(self, store_id: str) -> None:
        """Forget the index of a store that was deleted. Its files go with the next `delete_dropped`."""
        self._shelved.pop(store_id, None)
        self._dropped.add(store_id)
        self.is_changed.set()

    # ---- files, and room

    async def save(self, store_id: str) -> None:
        """Write what changed of an index since the last time, unless it changes while it is written; log failures."""
        shelved = self._shelved.get(store_id)
        if shelved is None or shelved.index is None or shelved.unsaved_since is None:
            return
        num_unsaved = shelved.num_unsaved
        shelved.num_unsaved, shelved.unsaved_since = 0, None
        is_saved = False
        try:
            is_saved = await self._maker.save(store_id, shelved.index)
        except (OSError, StorageError, ObjectNotFound) as exc:
            logger.warning("index not saved", extra={"store": store_id, "error": str(exc)})
            num_unsaved = 0  # it takes long until the next try
        finally:
            if not is_saved:
                shelved.note_change(num_unsaved, self._clock())

    async def save_all(self) -> None:
        """Write what changed since the last time, and delete files of stores that are gone. Failures are logged."""
        for shelved in list(self._shelved.values()):
            while shelved.catching_up is not None and not shelved.catching_up.done():
                await asyncio.wait((shelved.catching_up,))
            await self.save(shelved.store_id)
        await self.delete_lost()

    async def evict(self, store_id: str) -> bool:
        """Save an index and let go of it, until its next search; false if somebody has use for it meanwhile."""
        shelved = self._shelved.get(store_id)
        if shelved is None or shelved.is_busy:
            return False
        last_use = shelved.last_use
        await self.save(store_id)
        if shelved.last_use != last_use or shelved.is_busy or self._shelved.get(store_id) is not shelved:
            return False
        del self._shelved[store_id]
        await asyncio.to_thread(return_memory)
        return True

    async def delete_dropped(self) -> None:
        """Delete the files of stores that were dropped. Failures are logged; `delete_lost` tries again."""
        dropped, self._dropped = self._dropped, set()
        if not dropped:
            return
        try:
            await self._maker.delete_files(dropped)
        except OSError as exc:
            logger.warning("index files of deleted stores are left", extra={"error": str(exc)})

    async def delete_lost(self) -> None:
        """Delete files of all stores that are no more. Failures are logged."""
        try:
            await self._maker.delete_other_files()
        except (OSError, StorageError) as exc:
            logger.warning("index files of deleted stores are left", extra={"error": str(exc)})

    # ---- in step with the store

    def _catch_up(self, shelved: _Shelved, generation: int) -> asyncio.Task[None]:
        """Start to bring an index to a generation, unless something like it is going on."""
        if shelved.catching_up is None or shelved.catching_up.done():
            shelved.catching_up = asyncio.create_task(self._follow(shelved, generation))
            shelved.catching_up.add_done_callback(lambda task: self._caught_up(shelved, task))
        return shelved.catching_up

    def _caught_up(self, shelved: _Shelved, task: asyncio.Task[None]) -> None:
        self.is_changed.set()
        if task.cancelled():
            return
        if error := task.exception():
            if not isinstance(error, ObjectNotFound):  # deleted meanwhile
                logger.warning("index not brought up to date", extra={"store": shelved.store_id, "error": str(error)})
        elif shelved.changes:  # that came just now
            self._catch_up(shelved, max(shelved.changes))

    async def _follow(self, shelved: _Shelved, generation: int) -> None:
        if shelved.index is None:
            self._put(shelved, await self._maker.load(shelved.store_id))
        assert shelved.index is not None
        while shelved.index.generation < generation:
            change = await self._next_change(shelved, shelved.index.generation + 1)
            if change is None:
                logger.info("index made again, as a change was not told", extra={"store": shelved.store_id})
                self._put(shelved, await self._maker.make(shelved.store_id))
            elif isinstance(change, VectorSwap):
                self._put(shelved, await self._swap(shelved.index, change))
            else:
                await asyncio.to_thread(shelved.index.apply, change)
                shelved.note_change(len(change.added_ids) + len(change.removed_ids), self._clock())
        reached = shelved.index.generation
        shelved.changes = {number: change for number, change in shelved.changes.items() if number > reached}
        self._merge(shelved)

    def _put(self, shelved: _Shelved, made: MadeIndex) -> None:
        shelved.index = made.index
        shelved.num_unsaved, shelved.unsaved_since = 0, None
        if not made.is_saved:
            shelved.note_change(made.index.vectors.num_chunks, self._clock())

    async def _swap(self, index: StoreIndex, change: VectorSwap) -> MadeIndex:
        """Searches that hold the old index end with it; the next ones get the new one."""
        if change.vectors is None:
            return await self._maker.make(change.store_id)
        return MadeIndex(await asyncio.to_thread(index.swap, change), is_saved=False)

    async def _next_change(self, shelved: _Shelved, generation: int) -> ChunkChange | VectorSwap | None:
        """Wait for a change that may have been committed but not told yet; None if it does not come."""
        try:
            async with asyncio.timeout(self._patience_s):
                while generation not in shelved.changes:
                    shelved.changed.clear()
                    await shelved.changed.wait()
        except TimeoutError:
            return None
        return shelved.changes[generation]

    def _merge(self, shelved: _Shelved) -> None:
        if shelved.merging is None or shelved.merging.done():
            shelved.merging = asyncio.create_task(self._merge_all(shelved))
            shelved.merging.add_done_callback(lambda task: _report_merge(shelved.store_id, task))

    async def _merge_all(self, shelved: _Shelved) -> None:
        assert shelved.index is not None
        while await asyncio.to_thread(shelved.index.merge):
            pass


def _report_merge(store_id: str, task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        logger.error("index not merged", extra={"store": store_id}, exc_info=error)
