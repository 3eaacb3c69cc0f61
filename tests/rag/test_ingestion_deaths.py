"""Processes that die while they ingest: of a document, or of something else. Good documents get in all the same."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from server.errors import StorageError
from server.rag.documents import DocumentRecord, ParsedDocument
from tests.fakes.library import SMALL_CHUNKS, TENANT, FakeParser, Rig, jobs_done, open_rig

TEXT = "one two three four five six seven eight nine ten"  # five chunks, three slices


class Process:
    """One life of a server. Files called `killer` end it, and so does `die`: then nothing in it gets on any more."""

    def __init__(self, dice: random.Random | None = None) -> None:
        """Dies by itself, for no reason, at a moment that `dice` choose."""
        self._countdown = dice.randint(1, 40) if dice else -1
        self._num_calls = 0
        self._is_dead = asyncio.Event()
        self._is_still = asyncio.Event()
        self.is_buried = asyncio.Event()

    async def around(self, name: str, call: Callable[[], Awaitable[Any]]) -> Any:
        await self._count()
        self._num_calls += name != "parse"
        try:
            result = await call()
        finally:
            self._num_calls -= name != "parse"
        if self._is_dead.is_set() and self._num_calls == 0:
            self._is_still.set()
        await self._count()
        return result

    async def _count(self) -> None:
        self._countdown -= 1
        if self._countdown == 0:
            self._is_dead.set()
        if self._is_dead.is_set():
            await self.die()

    async def die(self) -> None:
        self._is_dead.set()
        if self._num_calls == 0:
            self._is_still.set()
        await self.is_buried.wait()
        raise StorageError("the process is dead")

    async def has_died(self) -> None:
        """Return when it is dead, and its last writes are on the disk."""
        await self._is_dead.wait()
        await self._is_still.wait()


class DeadlyParser(FakeParser):
    def __init__(self, process: Process) -> None:
        super().__init__()
        self._process = process

    async def parse(self, path: Path, filename: str) -> ParsedDocument:
        if filename.startswith("killer"):
            await self._process.die()
        return await super().parse(path, filename)


class Server:
    """One data directory, and the processes that open it one after the other."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self._folder = folder
        self._stack = stack  # the dead lie around until the end: nothing that ends them may write
        self._of_the_dead: set[asyncio.Task[Any]] = set()
        self._processes: list[Process] = []

    async def add(self, names: Sequence[str]) -> None:
        async with open_rig(self._folder) as rig:
            store = await rig.add_store()
            files = [await rig.add_file(f"{name} {TEXT}", name=name) for name in names]
            await rig.documents.add_documents(TENANT, store.id, [(each, {}, SMALL_CHUNKS) for each in files])

    async def live(self, dice: random.Random | None = None) -> bool:
        """Start, and work until there is nothing left to do; false if that was death."""
        process = Process(dice)
        self._processes.append(process)
        parser = DeadlyParser(process)
        rig = await self._stack.enter_async_context(
            open_rig(self._folder, parser=parser, around=process.around, max_running=3)
        )
        starting = asyncio.create_task(rig.library.ingestion.start(), name="ingestion of all begins")
        dying = asyncio.create_task(process.has_died())
        try:
            async with asyncio.timeout(10):
                while jobs := self._jobs():
                    await asyncio.wait([*jobs, dying], return_when=asyncio.FIRST_COMPLETED)
                    if dying.done():
                        self._of_the_dead |= {*self._jobs(), starting}
                        return False
            return True
        finally:
            dying.cancel()
            with suppress(asyncio.CancelledError):
                await dying
            if starting not in self._of_the_dead:
                await starting

    def bury(self) -> None:
        for process in self._processes:
            process.is_buried.set()

    async def statuses(self) -> dict[str, str]:
        async with open_rig(self._folder) as rig:
            return {each.filename: each.status for each in await documents_of(rig)}

    def _jobs(self) -> list[asyncio.Task[Any]]:
        tasks = [task for task in asyncio.all_tasks() if task.get_name().startswith("ingestion of")]
        return [task for task in tasks if task not in self._of_the_dead]


async def documents_of(rig: Rig) -> list[DocumentRecord]:
    [store], _ = await rig.documents.stores(TENANT)
    return (await rig.documents.documents(TENANT, store.id))[0]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with AsyncExitStack() as stack:
        server = Server(tmp_path, stack)
        yield server
        server.bury()


async def test_a_document_that_kills_is_given_up_and_no_other(server: Server) -> None:
    await server.add(["a", "killer", "b", "c", "d"])

    lives = [await server.live() for _ in range(4)]

    assert lives == [False, False, False, True]
    assert await server.statuses() == {"killer": "failed", **dict.fromkeys("abcd", "completed")}


@pytest.mark.parametrize("seed", range(8))
async def test_whatever_kills_good_documents_get_in(server: Server, seed: int) -> None:
    """One death in between is for no reason: it may take anybody's second attempt, and gives nobody a third."""
    dice = random.Random(seed)
    names = [*dice.sample("abcdefg", dice.randint(1, 7)), *[f"killer {n}" for n in range(dice.randint(0, 3))]]
    dice.shuffle(names)
    await server.add(names)
    odd_life = dice.randint(0, 6)

    for life in range(20):
        if await server.live(dice if life == odd_life else None):
            break

    expected = {name: "failed" if name.startswith("killer") else "completed" for name in names}
    assert await server.statuses() == expected, f"seed {seed}"


# ---- what counts as an attempt


async def add_unfinished(rig: Rig, *texts: str, num_attempts: int = 0) -> list[DocumentRecord]:
    """Documents in progress under which so many processes have died."""
    store = await rig.add_store()
    new = [(await rig.add_file(text, name=text), {}, SMALL_CHUNKS) for text in texts]
    documents = await rig.documents.add_documents(TENANT, store.id, new)
    for document in documents:
        for _ in range(num_attempts):
            await rig.documents.begin(document.id)
    return documents


async def test_a_failure_says_so_and_adding_the_file_again_tries_again(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        [document] = await add_unfinished(rig, TEXT, num_attempts=3)
        await rig.library.ingestion.start()
        await jobs_done()
        [failed] = await documents_of(rig)
        assert failed.failure == (
            "server_error",
            "the server ended 3 times while it worked on this file, all but the first time on this one alone; find out "
            "why (it may be out of memory), then add the file again",
        )

        again = await rig.documents.add_documents(TENANT, document.store_id, [(document.file_id, {}, SMALL_CHUNKS)])
        rig.library.ingestion.submit(TENANT, again)
        await jobs_done()

        assert [each.status for each in await documents_of(rig)] == ["completed"]


async def test_stopping_the_server_counts_for_nothing(tmp_path: Path) -> None:
    for _ in range(5):
        parser = FakeParser(gate=asyncio.Event())
        async with open_rig(tmp_path, parser=parser) as rig:
            if not (await rig.documents.stores(TENANT))[0]:
                await add_unfinished(rig, TEXT)
            await rig.library.ingestion.start()
            await parser.begun.get()

    async with open_rig(tmp_path) as rig:
        assert [each.num_attempts for each in await documents_of(rig)] == [0]


async def test_getting_on_is_a_new_beginning(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        [document] = await add_unfinished(rig, TEXT)
        attempts = []
        for number in range(5):
            attempts.append(await rig.documents.begin(document.id))
            await rig.documents.keep_pending(document.id, {b"%d" % number: b"vector"})

        assert attempts == [1, 2, 2, 2, 2]


async def test_suspects_come_first_and_one_at_a_time(tmp_path: Path) -> None:
    parser = FakeParser(gate=asyncio.Event())
    async with open_rig(tmp_path, parser=parser, max_running=4) as rig:
        await add_unfinished(rig, "new 1", "new 2")
        await add_unfinished(rig, "tried twice", num_attempts=2)
        await add_unfinished(rig, "tried once", num_attempts=1)
        await rig.library.ingestion.start()

        for expected in ("tried once", "tried twice"):
            assert await parser.begun.get() == expected
            assert parser.begun.empty()
            parser.gate.set()
            parser.gate = asyncio.Event()
        parser.gate.set()
        await jobs_done()

        assert sorted(parser.names[2:]) == ["new 1", "new 2"]


async def test_a_suspect_that_gets_on_keeps_nobody_waiting(tmp_path: Path) -> None:
    kept, may_go_on = asyncio.Event(), asyncio.Event()

    async def around(name: str, call: Callable[[], Awaitable[Any]]) -> Any:
        result = await call()
        if name == "known_vectors" and kept.is_set():
            may_go_on.set()  # by the other one
        if name == "keep_pending":
            kept.set()
        elif name == "complete":
            await may_go_on.wait()
        return result

    async with open_rig(tmp_path, around=around) as rig:
        await add_unfinished(rig, TEXT, num_attempts=1)
        await add_unfinished(rig, "short")
        await rig.library.ingestion.start()

        await jobs_done()

        assert may_go_on.is_set()
