"""Who is next, and what stops whom; what a job does is `test_ingestion_job.py`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from server.asker import Asker, asking, current_asker
from server.errors import ModelUnavailable, Overloaded
from server.models.registry import ModelEntry
from server.protocols import EmbeddingResult
from server.rag.documents import ChunkingStrategy, DocumentRecord, StoreRecord
from tests.fakes.library import FACTS, SMALL_CHUNKS, TENANT, FakeParser, Rig, fake_embedder, jobs_done, open_rig
from tests.fakes.models import FakeChatModel, FakeEmbedder
from tests.fakes.wide_embedder import WIDE, WIDE_FACTS, WideEmbedder


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """One job runs at a time, and waits at the parser's gate."""
    async with open_rig(tmp_path, parser=FakeParser(gate=asyncio.Event()), max_running=1) as rig:
        yield rig


async def submit(
    rig: Rig, store: StoreRecord, names: Sequence[str], *, chunking: ChunkingStrategy = SMALL_CHUNKS
) -> list[DocumentRecord]:
    files = [await rig.add_file(f"this is {name}", name=name) for name in names]
    documents = await rig.documents.add_documents(TENANT, store.id, [(each, {}, chunking) for each in files])
    rig.library.ingestion.submit(TENANT, documents)
    return documents


async def finish(rig: Rig) -> None:
    assert rig.parser.gate is not None
    rig.parser.gate.set()
    await jobs_done()


async def status_of(rig: Rig, document: DocumentRecord) -> str:
    return (await rig.documents.document(TENANT, document.store_id, document.file_id)).status


async def test_stores_take_turns(rig: Rig) -> None:
    await submit(rig, await rig.add_store(), ["a1", "a2", "a3"])
    await submit(rig, await rig.add_store(), ["b1", "b2"])

    await finish(rig)

    assert rig.parser.names == ["a1", "a2", "b1", "a3", "b2"]


@dataclass
class NotingEmbedder(FakeEmbedder):
    """Notes on whose account it embeds."""

    askers: set[Asker] = field(default_factory=set)

    async def embed(self, inputs: Any, **options: Any) -> EmbeddingResult:
        self.askers.add(current_asker())
        return await super().embed(inputs, **options)


async def test_a_job_works_on_its_tenants_account_whoever_began_it(tmp_path: Path) -> None:
    """So nobody else can tell, by what is computed already, what is in the tenant's documents."""
    embedder = NotingEmbedder(facts=FACTS, max_characters=10_000)
    async with open_rig(tmp_path, embedder=embedder) as rig:
        with asking(Asker(tenant="the one that began it", deadline_at=0)):
            await submit(rig, await rig.add_store(), ["a"])
        await jobs_done()

    assert embedder.askers == {Asker(tenant=TENANT)}


async def test_only_so_many_run_at_a_time(tmp_path: Path) -> None:
    parser = FakeParser(gate=asyncio.Event())
    async with open_rig(tmp_path, parser=parser, max_running=2) as rig:
        await submit(rig, await rig.add_store(), ["a", "b", "c"])
        await parser.begun.get()
        await parser.begun.get()

        assert sorted(parser.names) == ["a", "b"]
        await finish(rig)
        assert parser.names[2:] == ["c"]


async def test_documents_that_wait_for_contexts_do_not_keep_others_waiting(tmp_path: Path) -> None:
    chat = FakeChatModel(steps=(asyncio.Event(),))
    async with open_rig(tmp_path, chat=chat, max_running=4) as rig:
        slow, quick = await rig.add_store(), await rig.add_store()
        await submit(rig, slow, ["a1", "a2", "a3", "a4"], chunking=replace(SMALL_CHUNKS, context=True))
        await chat.begun.wait()

        [document] = await submit(rig, quick, ["b"])
        [job] = [task for task in asyncio.all_tasks() if task.get_name() == f"ingestion of {document.file_id}"]
        await asyncio.wait_for(job, 10)

        assert sorted(rig.parser.names) == ["a1", "a2", "b"]


async def test_a_waiting_job_can_be_cancelled(rig: Rig) -> None:
    first, second = await submit(rig, await rig.add_store(), ["a", "b"])

    rig.library.ingestion.cancel(lambda document: document.id == second.id)
    await finish(rig)

    assert rig.parser.names == ["a"]
    assert [await status_of(rig, each) for each in (first, second)] == ["completed", "in_progress"]


async def test_a_running_job_is_cancelled_at_once_and_the_next_begins(rig: Rig) -> None:
    first, second = await submit(rig, await rig.add_store(), ["a", "b"])
    await rig.parser.begun.get()

    rig.library.ingestion.cancel(lambda document: document.id == first.id)
    await finish(rig)

    assert [await status_of(rig, each) for each in (first, second)] == ["in_progress", "completed"]


async def test_the_last_of_very_many_are_cancelled_at_once(rig: Rig) -> None:
    """In a row of 40,000, looking for each of the last 10,000 would take the event loop ten seconds."""
    [one] = await submit(rig, await rig.add_store(), ["a"])
    rig.library.ingestion.submit(TENANT, [replace(one, id=one.id + number) for number in range(1, 40_001)])
    started = time.perf_counter()

    rig.library.ingestion.cancel(lambda document: document.id > one.id + 30_000)

    assert time.perf_counter() - started < 1
    rig.library.ingestion.cancel(lambda document: document.id > one.id)
    await finish(rig)
    assert rig.parser.names == ["a"]


async def test_one_that_fails_does_not_keep_others(rig: Rig) -> None:
    rig.parser.errors = [RuntimeError("a bug")]  # type: ignore[list-item]
    first, second = await submit(rig, await rig.add_store(), ["a", "b"])

    await finish(rig)

    assert [await status_of(rig, each) for each in (first, second)] == ["failed", "completed"]


async def test_after_a_stop_another_process_goes_on(tmp_path: Path) -> None:
    parser = FakeParser(gate=asyncio.Event())
    async with open_rig(tmp_path, parser=parser, max_running=1) as rig:
        documents = await submit(rig, await rig.add_store(), ["a", "b", "c"])
        await parser.begun.get()
        await rig.library.ingestion.stop()

    async with open_rig(tmp_path) as rig:
        await rig.library.ingestion.start()
        await jobs_done()

        assert [await status_of(rig, each) for each in documents] == ["completed"] * 3


async def test_nothing_begins_after_a_stop(rig: Rig) -> None:
    await rig.library.ingestion.stop()

    await submit(rig, await rig.add_store(), ["a"])
    await finish(rig)

    assert rig.parser.names == []


async def test_a_waiting_document_has_no_progress_yet(rig: Rig) -> None:
    _, second = await submit(rig, await rig.add_store(), ["a", "b"])

    assert rig.library.ingestion.with_progress(second) == second


async def test_what_is_over_is_told_as_the_database_has_it(rig: Rig) -> None:
    [document] = await submit(rig, await rig.add_store(), ["a"])
    await finish(rig)

    done = await rig.documents.document(TENANT, document.store_id, document.file_id)

    assert rig.library.ingestion.with_progress(done) == done


# ---- models that are not there


@pytest.fixture
async def two_models(tmp_path: Path) -> AsyncIterator[Rig]:
    """One job runs at a time; the model of `add_store` is loading, and answers when its gate is opened."""
    embedder = fake_embedder(state="loading", gate=asyncio.Event())
    others = [ModelEntry(WIDE, WideEmbedder())]
    async with open_rig(tmp_path, embedder=embedder, others=others, max_running=1) as rig:
        yield rig


async def add_wide_store(rig: Rig) -> StoreRecord:
    return await rig.documents.create_store(
        TENANT, embedding_model="wide", fingerprint=WIDE_FACTS.fingerprint, dimensions=3, chunking=SMALL_CHUNKS
    )


async def is_done(document: DocumentRecord) -> None:
    [job] = [task for task in asyncio.all_tasks() if task.get_name() == f"ingestion of {document.file_id}"]
    await asyncio.wait_for(job, 10)


def load(rig: Rig) -> None:
    assert rig.embedder.gate is not None
    rig.embedder.state = "ready"
    rig.embedder.gate.set()


async def test_a_model_that_loads_keeps_only_its_own_stores_waiting(two_models: Rig) -> None:
    rig = two_models
    waiting = await submit(rig, await rig.add_store(), ["a1", "a2", "a3"])
    await rig.embedder.begun.wait()

    [other] = await submit(rig, await add_wide_store(rig), ["b"])
    await is_done(other)

    assert rig.parser.names == ["b"], "what waits has not been read, and holds no memory"
    told = [rig.library.ingestion.with_progress(each).waiting_for for each in waiting]
    assert told == ["model 'embedder' is not ready yet"] * 3
    load(rig)
    await jobs_done()
    assert [await status_of(rig, each) for each in (*waiting, other)] == ["completed"] * 4


async def test_a_model_that_ends_in_the_middle_of_a_job_keeps_only_its_own_stores_waiting(two_models: Rig) -> None:
    rig = two_models
    rig.embedder.state = "ready"
    [waiting] = await submit(rig, await rig.add_store(), ["a"])
    await rig.embedder.begun.wait()  # it tells the text's tokens
    assert rig.embedder.gate is not None
    rig.embedder.state = "loading"
    rig.embedder.gate.set()
    rig.embedder.gate = asyncio.Event()
    rig.embedder.begun.clear()
    await rig.embedder.begun.wait()

    [other] = await submit(rig, await add_wide_store(rig), ["b"])
    await is_done(other)

    assert await status_of(rig, waiting) == "in_progress"
    load(rig)
    await jobs_done()
    assert await status_of(rig, waiting) == "completed"


async def test_a_model_that_has_failed_keeps_only_its_own_stores_waiting(two_models: Rig) -> None:
    rig = two_models
    rig.embedder.state, rig.embedder.error = "failed", ModelUnavailable("it has failed")
    waiting = await submit(rig, await rig.add_store(), ["a1", "a2"])
    await rig.embedder.begun.wait()

    [other] = await submit(rig, await add_wide_store(rig), ["b"])
    await is_done(other)

    assert [rig.library.ingestion.with_progress(each).waiting_for for each in waiting] == ["it has failed"] * 2
    rig.embedder.error = None
    load(rig)
    await jobs_done()
    assert [await status_of(rig, each) for each in waiting] == ["completed"] * 2


async def test_who_waits_for_a_model_can_be_cancelled_and_stopped(two_models: Rig) -> None:
    rig = two_models
    first, second = await submit(rig, await rig.add_store(), ["a1", "a2"])
    await rig.embedder.begun.wait()

    rig.library.ingestion.cancel(lambda document: document.id == first.id)
    await rig.embedder.cancelled.wait()
    assert rig.library.ingestion.with_progress(second) != second, "it waits in the first one's place"
    rig.library.ingestion.cancel(lambda document: document.id == second.id)
    await jobs_done()

    assert rig.parser.names == []


async def test_a_model_with_too_much_to_do_is_not_asked_by_more_jobs(two_models: Rig) -> None:
    rig = two_models
    rig.embedder.state, rig.embedder.error = "ready", Overloaded("too much to do")
    await submit(rig, await rig.add_store(), ["a1", "a2", "a3"])
    for _ in range(20):
        await rig.embedder.begun.wait()
        rig.embedder.begun.clear()

    assert rig.parser.names == ["a1"]
    rig.embedder.error = None
    load(rig)
    await jobs_done()
