"""One job over a real data directory, with a fake parser and a fake model."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from server.errors import HearthError, InvalidRequest, ModelUnavailable, StorageError, StorageFull, WorkerCrashed
from server.rag import ingestion_job
from server.rag.chunker import chunk
from server.rag.documents import Block, ChunkedDocument, DocumentRecord, ParsedDocument, StoreRecord
from server.rag.index_check import check_index
from server.rag.ingestion_job import IngestionJob
from server.rag.parsing import ParseFailed
from tests.fakes.library import (
    AT_ONCE,
    FACTS,
    SMALL_CHUNKS,
    TENANT,
    FakeParser,
    Rig,
    fake_embedder,
    jobs_done,
    open_rig,
)
from tests.fakes.models import FakeChatModel, saying

TEXT = "one two three four five six seven eight nine ten"  # five chunks of ten characters


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with open_rig(tmp_path) as rig:
        yield rig


async def add_document(rig: Rig, text: str = TEXT, *, store: StoreRecord | None = None) -> DocumentRecord:
    """Put a file into a store, of its own unless one is given, as a job that nobody runs yet."""
    store = store or await rig.add_store()
    [document] = await rig.documents.add_documents(TENANT, store.id, [(await rig.add_file(text), {}, SMALL_CHUNKS)])
    return document


async def run(rig: Rig, document: DocumentRecord) -> DocumentRecord:
    """Bring a job to its end; return what came of the document."""
    async with asyncio.timeout(10):
        await IngestionJob(TENANT, document, rig.tools).run()
    return await rig.documents.document(TENANT, document.store_id, document.file_id)


def letters(texts: list[str]) -> str:
    """Chunks of ten characters end anywhere, and lose the space around them."""
    return "".join("".join(texts).split())


async def stored_texts(rig: Rig, store_id: str) -> list[str]:
    index = await rig.library.shelf.index(store_id)
    ids, _ = await asyncio.to_thread(index.vectors.search, np.array([[1, 0]], np.float32), 100)
    return [chunk.text for chunk in await rig.documents.chunks(np.sort(ids[ids >= 0]))]


async def test_documents_are_cut_one_at_a_time(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or searches wait: for a thread, and for the interpreter."""
    meeting = threading.Barrier(2)

    def cut_and_wait_for_another(*arguments: Any) -> ChunkedDocument:
        with suppress(threading.BrokenBarrierError):
            meeting.wait(0.2)
            raise AssertionError("two are at it")
        return chunk(*arguments)

    monkeypatch.setattr(ingestion_job, "chunk", cut_and_wait_for_another)
    jobs = [await add_document(rig) for _ in range(2)]

    done = await asyncio.gather(*(run(rig, job) for job in jobs))

    assert [each.status for each in done] == ["completed"] * 2


async def test_a_completed_document_is_found(rig: Rig) -> None:
    done = await run(rig, await add_document(rig))

    assert (done.status, done.num_chunks, done.num_chunks_done) == ("completed", 5, 5)
    assert letters(await stored_texts(rig, done.store_id)) == letters([TEXT])


async def test_chunks_are_embedded_as_documents_and_whole_in_the_bulk_lane(rig: Rig) -> None:
    await run(rig, await add_document(rig))

    assert {(each["prompt"], each["truncate"], each["lane"]) for each in rig.embedder.options} == {
        ("passage: ", "mean", "bulk")
    }


async def test_headings_are_embedded_with_what_stands_below_them(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "Roses\nPrune them in March."
    blocks = (Block("heading", 0, 5, level=1), Block("paragraph", 6, len(text)))

    async def parse(_path: Path, _filename: str) -> ParsedDocument:
        return ParsedDocument(text, blocks, "text/plain")

    monkeypatch.setattr(rig.parser, "parse", parse)

    done = await run(rig, await add_document(rig))

    assert rig.embedder.embedded[-1] == "Roses\nMarch."
    assert (await stored_texts(rig, done.store_id))[-1] == "March."


async def test_columns_of_a_table_are_embedded_and_searched_with_its_rows(rig: Rig, tmp_path: Path) -> None:
    rig.parser.kind = "table"
    text = "Tea | Cost\nmate | low\nchai | high"

    done = await run(rig, await add_document(rig, text))

    rows = ["mate | lo", "w\nchai | h", "igh"]
    assert rig.embedder.embedded == ["Tea | Cost", *(f"Tea | Cost\n{row}" for row in rows)]
    assert letters(await stored_texts(rig, done.store_id)) == letters([text])
    index = await rig.library.shelf.index(done.store_id)
    assert len(index.words.search("cost", 10)[0]) == 4
    assert check_index(tmp_path).problems == ()


async def test_unchanged_content_is_not_embedded_again(rig: Rig) -> None:
    first = await run(rig, await add_document(rig))
    num_embedded = len(rig.embedder.embedded)

    [again] = await rig.documents.add_documents(TENANT, first.store_id, [(first.file_id, {}, SMALL_CHUNKS)])
    done = await run(rig, again)

    assert done.status == "completed"
    assert len(rig.embedder.embedded) == num_embedded
    assert len(await stored_texts(rig, first.store_id)) == 5


async def test_equal_chunks_of_a_document_are_embedded_once(rig: Rig) -> None:
    done = await run(rig, await add_document(rig, "abcdefghi " * 7))

    assert done.num_chunks == 7
    assert rig.embedder.embedded == ["abcdefghi"]


async def test_another_store_does_not_lend_its_vectors(rig: Rig) -> None:
    """It may be another tenant's, and how fast a document is done would tell what others have."""
    await run(rig, await add_document(rig, "abcdefghi"))
    await run(rig, await add_document(rig, "abcdefghi"))

    assert rig.embedder.embedded == ["abcdefghi"] * 2


@pytest.mark.parametrize("code", ["unsupported_file", "invalid_file"])
async def test_a_file_that_cannot_be_read_fails_with_the_parsers_reason(rig: Rig, code: Any) -> None:
    rig.parser.errors = [ParseFailed(code, "no such luck")]

    done = await run(rig, await add_document(rig))

    assert (done.status, done.failure) == ("failed", (code, "no such luck"))


async def test_what_is_not_the_files_fault_is_tried_again(rig: Rig) -> None:
    rig.parser.errors = [ParseFailed("server_error", "killed")] * 2

    assert (await run(rig, await add_document(rig))).status == "completed"


async def test_a_file_without_text_fails(rig: Rig) -> None:
    done = await run(rig, await add_document(rig, "  \n "))

    assert done.failure == ("invalid_file", "the file has no text")


async def test_a_file_of_too_many_chunks_fails(tmp_path: Path) -> None:
    """All vectors of a document are held in memory until it is committed."""
    async with open_rig(tmp_path, policy=replace(AT_ONCE, max_chunks=4)) as rig:
        done = await run(rig, await add_document(rig))

    assert done.failure == (
        "invalid_file",
        "the file makes 5 chunks, more than 4; split it, or let chunks be larger",
    )


async def test_an_unforeseen_error_fails_the_document_and_tells_nothing(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.parser.errors = [RuntimeError("secret path")]  # type: ignore[list-item]  # a bug of ours

    done = await run(rig, await add_document(rig))

    assert done.failure == ("server_error", "internal error; the server's log has the details")
    assert "secret path" in caplog.text


async def test_another_model_under_the_same_name_is_refused(rig: Rig) -> None:
    done = await run(rig, await add_document(rig, store=await rig.add_store(fingerprint="f0")))

    assert done.status == "failed"
    assert done.failure and "embed the store anew" in done.failure[1]
    assert rig.embedder.embedded == []


async def test_vectors_of_a_worker_that_came_with_other_weights_are_not_kept(tmp_path: Path) -> None:
    async def around(name: str, call: Callable[[], Awaitable[Any]]) -> Any:
        if name == "keep_pending":
            rig.embedder.facts = msgspec.structs.replace(FACTS, fingerprint="f2")
        return await call()

    async with open_rig(tmp_path, around=around) as rig:
        done = await run(rig, await add_document(rig))

        assert done.status == "failed"
        assert await stored_texts(rig, done.store_id) == []


async def test_a_model_that_cannot_tell_its_tokens_gets_estimated_ones(rig: Rig) -> None:
    async def refuse(*_: object, **__: object) -> Any:
        raise InvalidRequest("this model cannot tell its tokens", code="unsupported_value")

    rig.embedder.tokenize = refuse  # type: ignore[method-assign]

    done = await run(rig, await add_document(rig))

    assert (done.status, done.num_chunks) == ("completed", 2)


# ---- what passes


class Unreliable:
    """Lets calls of one name fail, with one error after the other."""

    def __init__(self, name: str, *errors: HearthError) -> None:
        self._name = name
        self._errors = list(errors)

    async def __call__(self, name: str, call: Callable[[], Awaitable[Any]]) -> Any:
        if name == self._name and self._errors:
            raise self._errors.pop(0)
        return await call()


@pytest.mark.parametrize(
    "around",
    [
        Unreliable("find_embedder", ModelUnavailable("loading"), WorkerCrashed("died"), WorkerCrashed("died")),
        Unreliable("keep_pending", *[StorageFull("full")] * 9),
        Unreliable("complete", *[StorageFull("full")] * 9),
        Unreliable("complete", *[StorageError("held")] * 2),
        Unreliable("store", StorageError("held")),
        Unreliable("known_vectors", StorageError("held")),
    ],
)
async def test_a_job_waits_for_the_model_and_for_the_disk(tmp_path: Path, around: Unreliable) -> None:
    async with open_rig(tmp_path, around=around) as rig:
        done = await run(rig, await add_document(rig))

        assert done.status == "completed"
        assert len(await stored_texts(rig, done.store_id)) == 5


@pytest.mark.parametrize(
    "around",
    [
        Unreliable("find_embedder", *[WorkerCrashed("the worker ended")] * 3),
        Unreliable("complete", *[StorageError("the disk is broken")] * 3),
    ],
)
async def test_it_gives_up_what_kills_the_worker_or_what_the_disk_refuses(tmp_path: Path, around: Unreliable) -> None:
    async with open_rig(tmp_path, around=around) as rig:
        done = await run(rig, await add_document(rig))

        assert done.failure in [("server_error", "the worker ended"), ("server_error", "the disk is broken")]


async def test_a_failure_that_cannot_be_noted_leaves_the_document_for_the_next_start(tmp_path: Path) -> None:
    around = Unreliable("fail", *[StorageError("the disk is broken")] * 3)
    parser = FakeParser(errors=[ParseFailed("invalid_file", "broken")])
    async with open_rig(tmp_path, around=around, parser=parser) as rig:
        document = await add_document(rig)

        assert (await run(rig, document)).status == "in_progress"
        assert (await run(rig, document)).status == "completed"


async def test_progress_says_how_far_it_is_and_what_it_waits_for(rig: Rig) -> None:
    rig.embedder.gate = asyncio.Event()
    document = await add_document(rig)
    job = IngestionJob(TENANT, document, rig.tools)
    running = asyncio.create_task(job.run())
    before = job.with_progress(document)

    rig.embedder.gate.set()
    await running

    after = job.with_progress(document)
    assert (before.num_chunks, before.eta_s) == (0, None)
    assert (after.num_chunks, after.num_chunks_done, after.eta_s, after.waiting_for) == (5, 5, 0, None)


# ---- a document that is gone meanwhile


@pytest.mark.parametrize("stage", ["store", "parse", "known_vectors", "keep_pending", "complete"])
async def test_a_document_that_is_removed_meanwhile_leaves_nothing(tmp_path: Path, stage: str) -> None:
    async def around(name: str, call: Callable[[], Awaitable[Any]]) -> Any:
        if name == stage and not removed:
            removed.append(name)
            change = await rig.documents.remove_document(TENANT, document.store_id, document.file_id)
            rig.library.shelf.apply(change)
        return await call()

    removed: list[str] = []
    async with open_rig(tmp_path, around=around) as rig:
        document = await add_document(rig)
        await IngestionJob(TENANT, document, rig.tools).run()

        assert removed
        assert await stored_texts(rig, document.store_id) == []
        assert (await rig.documents.store(TENANT, document.store_id)).counts.total == 0


async def test_the_old_chunks_are_found_until_the_new_ones_are(rig: Rig) -> None:
    first = await run(rig, await add_document(rig))
    [again] = await rig.documents.add_documents(TENANT, first.store_id, [(first.file_id, {}, SMALL_CHUNKS)])

    found_meanwhile = await stored_texts(rig, first.store_id)
    await run(rig, again)

    assert len(found_meanwhile) == 5
    assert sorted(await stored_texts(rig, first.store_id)) == sorted(found_meanwhile)


async def test_a_cancelled_commit_still_reaches_the_index(tmp_path: Path) -> None:
    committed = asyncio.Event()

    async def around(name: str, call: Callable[[], Awaitable[Any]]) -> Any:
        result = await call()
        if name == "complete":
            committed.set()
            await asyncio.sleep(0)  # here the cancellation arrives
        return result

    async with open_rig(tmp_path, around=around) as rig:
        document = await add_document(rig)
        await rig.library.shelf.index(document.store_id)
        running = asyncio.create_task(IngestionJob(TENANT, document, rig.tools).run())
        await committed.wait()
        running.cancel()
        await asyncio.wait((running,))

        assert running.cancelled()
        assert len(await stored_texts(rig, document.store_id)) == 5


# ---- crashes


class Crash:
    """Lets the process stand still, for ever, just before or just after a call.

    Attributes:
        reached: Set once it does; `at` tells where, for a failing test.
    """

    def __init__(self, point: int) -> None:
        self._countdown = point
        self.reached = asyncio.Event()
        self.at = ""

    async def __call__(self, name: str, call: Callable[[], Awaitable[Any]]) -> Any:
        if name == "take_back":  # by those who clear up after the test: the dead write nothing
            return None
        await self._step(f"before {name}")
        result = await call()
        await self._step(f"after {name}")
        return result

    async def _step(self, where: str) -> None:
        if self._countdown == 0:
            self.at = where
            self.reached.set()
            await asyncio.Event().wait()
        self._countdown -= 1


async def test_a_document_survives_a_crash_at_every_point(tmp_path: Path) -> None:
    """The process is given up there, and another one opens the data directory."""
    points = []
    for point in itertools.count():
        folder = tmp_path / str(point)
        crash = Crash(point)
        if not await _run_until_crash(folder, crash):
            break
        points.append(crash.at)
        async with open_rig(folder) as rig:
            await rig.library.ingestion.start()
            await jobs_done()
            [store], _ = await rig.documents.stores(TENANT)
            assert (store.counts.completed, store.counts.total) == (1, 1), crash.at
            assert letters(await stored_texts(rig, store.id)) == letters([TEXT]), crash.at
            if crash.at == "after keep_pending":
                assert len(rig.embedder.embedded) < 5, "what was embedded is not embedded again"

    assert {"before parse", "after known_vectors", "after keep_pending", "before complete", "after complete"} <= {
        *points
    }


async def _run_until_crash(folder: Path, crash: Crash) -> bool:
    """Leave a job where it crashed; false if it came to its end before."""
    async with AsyncExitStack() as stack:
        rig = await stack.enter_async_context(open_rig(folder, around=crash, embedder=fake_embedder()))
        job = asyncio.create_task(IngestionJob(TENANT, await add_document(rig), rig.tools).run())
        reached = asyncio.create_task(crash.reached.wait())
        await asyncio.wait((job, reached), return_when=asyncio.FIRST_COMPLETED)
        reached.cancel()
        return not job.done()


# ---- contexts

WITH_CONTEXT = replace(SMALL_CHUNKS, context=True)


async def add_document_with_context(rig: Rig, text: str = TEXT, *, store: StoreRecord | None = None) -> DocumentRecord:
    store = store or await rig.add_store()
    [document] = await rig.documents.add_documents(TENANT, store.id, [(await rig.add_file(text), {}, WITH_CONTEXT)])
    return document


async def stored_contexts(rig: Rig, store_id: str) -> list[str]:
    ids = [chunk_id for chunk_id, _, _ in await rig.documents.headings(store_id)]
    return [chunk.context for chunk in await rig.documents.chunks(ids)]


async def test_contexts_are_embedded_and_searched_and_not_shown(tmp_path: Path) -> None:
    chat = FakeChatModel(steps=saying("numbers from one to ten"))
    async with open_rig(tmp_path, chat=chat) as rig:
        done = await run(rig, await add_document_with_context(rig))

        assert (done.status, len(chat.requests)) == ("completed", 5)
        assert await stored_contexts(rig, done.store_id) == ["numbers from one to ten"] * 5
        assert {str(text).partition("\n")[0] for text in rig.embedder.embedded} == {"numbers from one to ten"}
        assert letters(await stored_texts(rig, done.store_id)) == letters([TEXT])
        index = await rig.library.shelf.index(done.store_id)
        assert len(index.words.search("numbers", 10)[0]) == 5


async def test_what_was_written_is_not_written_again(tmp_path: Path) -> None:
    chat = FakeChatModel(steps=saying("one to ten"))
    async with open_rig(tmp_path, chat=chat) as rig:
        first = await run(rig, await add_document_with_context(rig))
        num_embedded = len(rig.embedder.embedded)
        [again] = await rig.documents.add_documents(TENANT, first.store_id, [(first.file_id, {}, WITH_CONTEXT)])

        done = await run(rig, again)

        assert (done.status, len(chat.requests), len(rig.embedder.embedded)) == ("completed", 5, num_embedded)
        assert await stored_contexts(rig, done.store_id) == ["one to ten"] * 5


async def test_documents_that_do_not_want_contexts_get_none(tmp_path: Path) -> None:
    chat = FakeChatModel()
    async with open_rig(tmp_path, chat=chat) as rig:
        done = await run(rig, await add_document(rig))

        assert (done.status, chat.requests) == ("completed", [])


@pytest.mark.parametrize(
    "chat", [None, FakeChatModel(steps=(ModelUnavailable("it has failed"),))], ids=["no model", "a failed model"]
)
async def test_without_the_chat_model_a_document_does_without(
    tmp_path: Path, chat: FakeChatModel | None, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_rig(tmp_path, chat=chat) as rig:
        done = await run(rig, await add_document_with_context(rig))

        assert done.status == "completed"
        assert await stored_contexts(rig, done.store_id) == [""] * 5
        assert "chunks without context" in caplog.text
        assert chat is None or len(chat.requests) <= 2, "who has failed is not asked for each chunk"


async def test_progress_tells_of_contexts(tmp_path: Path) -> None:
    chat = FakeChatModel(steps=(asyncio.Event(),))
    async with open_rig(tmp_path, chat=chat) as rig:
        document = await add_document_with_context(rig)
        job = IngestionJob(TENANT, document, rig.tools)
        running = asyncio.create_task(job.run())
        await chat.begun.wait()

        assert job.with_progress(document).waiting_for == "the chat model writes contexts: 0 of 5"
        running.cancel()
        await asyncio.wait((running,))


async def test_contexts_survive_a_crash(tmp_path: Path) -> None:
    """The process is given up after two were kept; another one has three left to write."""
    reached = asyncio.Event()
    kept: list[str] = []

    async def around(name: str, call: Callable[[], Awaitable[Any]]) -> Any:
        result = await call()
        if name == "keep_contexts":
            kept.append(name)
            if len(kept) == 2:
                reached.set()
                await asyncio.Event().wait()
        return result

    async with AsyncExitStack() as stack:
        chat = FakeChatModel(steps=saying("one to ten"))
        policy = replace(AT_ONCE, contexts_ahead=1)
        rig = await stack.enter_async_context(open_rig(tmp_path, chat=chat, around=around, policy=policy))
        job = asyncio.create_task(IngestionJob(TENANT, await add_document_with_context(rig), rig.tools).run())
        await reached.wait()

        other = FakeChatModel(steps=saying("one to ten"))
        async with open_rig(tmp_path, chat=other) as again:
            await again.library.ingestion.start()
            await jobs_done()
            [store], _ = await again.documents.stores(TENANT)
            assert (store.counts.completed, len(other.requests)) == (1, 3)
            assert await stored_contexts(again, store.id) == ["one to ten"] * 5
        job.cancel()
        await asyncio.wait((job,))
