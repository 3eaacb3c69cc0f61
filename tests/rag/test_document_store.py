import secrets
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.errors import Conflict, InvalidRequest, ObjectNotFound, StorageError, StorageFull
from server.rag.document_store import DocumentStore
from server.rag.documents import Attributes, ChunkingStrategy, Expired, Span, StatusCounts
from server.rag.filters import parse_filter
from server.rag.paging import Page
from server.rag.rows import sweeps
from server.storage import database as database_module
from server.storage.database import Database
from tests.fakes.document_check import findings
from tests.fakes.documents import DIMENSIONS, a_file, a_store, completed, cut, swept, vector_of

DAY_S = 86_400
NOTHING = Expired((), (), ())
STATIC = ChunkingStrategy(kind="static", max_tokens=300, overlap_tokens=20)


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database.open(tmp_path / "hearth.db")
    yield database
    database.close()


@pytest.fixture
def documents(database: Database, clock: Clock) -> DocumentStore:
    return DocumentStore(database, clock=clock)


async def num_rows(documents: DocumentStore, table: str) -> int:
    [(number,)] = await documents.read(lambda db: db.execute(f"SELECT count(*) FROM {table}").fetchall())
    return number


# ---- files


async def test_a_file_comes_back_as_it_was(documents: DocumentStore) -> None:
    file = a_file("file-1", expires_at=5)
    await documents.add_file("default", file)

    assert await documents.file("default", "file-1") == file
    assert await documents.file_ids() == {"file-1"}


async def test_files_are_listed_by_purpose(documents: DocumentStore) -> None:
    for number in range(3):
        await documents.add_file("default", a_file(f"file-{number}"))

    newest_first, has_more = await documents.files("default", purpose="assistants", page=Page(limit=2))

    assert ([file.id for file in newest_first], has_more) == (["file-2", "file-1"], True)
    assert await documents.files("default", purpose="batch") == ([], False)


async def test_a_deleted_file_leaves_every_store(documents: DocumentStore) -> None:
    await documents.add_file("default", a_file("file-1"))
    stores = [await a_store(documents) for _ in range(2)]
    added = [await completed(documents, store.id, "file-1", "some text") for store in stores]

    changes = await documents.delete_file("default", "file-1")

    assert [change.store_id for change in changes] == [store.id for store in stores]
    assert [change.removed_ids.tolist() for change in changes] == [change.added_ids.tolist() for change in added]
    assert [change.generation for change in changes] == [2, 2]
    for table in ("files", "documents", "chunks", "parents", "texts"):
        assert await num_rows(documents, table) == 0
    with pytest.raises(ObjectNotFound):
        await documents.file("default", "file-1")


# ---- vector stores


async def test_a_store_comes_back_as_it_was_made(documents: DocumentStore, clock: Clock) -> None:
    made = await documents.create_store(
        "default",
        name="Notes",
        description="of all kinds",
        metadata={"k": "v"},
        expires_after_days=3,
        embedding_model="mini",
        fingerprint="abc",
        dimensions=384,
        chunking=STATIC,
    )

    assert await documents.store("default", made.id) == made
    assert (made.name, made.metadata, made.chunking, made.expires_after_days) == ("Notes", {"k": "v"}, STATIC, 3)
    assert (made.created_at, made.last_active_at, made.generation) == (clock.now, clock.now, 0)
    assert made.counts == StatusCounts()


async def test_what_a_client_may_change_of_a_store_is_replaced(documents: DocumentStore) -> None:
    store = await a_store(documents)

    changed = await documents.update_store("default", store.id, name="b", metadata={"x": "y"}, expires_after_days=7)

    assert (changed.name, changed.metadata, changed.expires_after_days) == ("b", {"x": "y"}, 7)
    assert await documents.store("default", store.id) == changed


async def test_use_of_a_store_is_told_at_once(documents: DocumentStore, clock: Clock) -> None:
    store = await a_store(documents)
    told = []
    for now in (clock.now + 60, clock.now - 500):  # the last: somebody has set the clock back
        documents.touch(store.id, int(now))
        [listed], _ = await documents.stores("default")
        assert await documents.store("default", store.id) == listed
        told.append(listed.last_active_at - int(clock.now))

    assert told == [60, 60]


async def test_use_of_a_store_is_written_before_anything_expires(documents: DocumentStore, clock: Clock) -> None:
    store = await a_store(documents, expires_after_days=1)
    documents.touch(store.id, int(clock.now) + DAY_S - 1)
    documents.touch("vs_deleted", int(clock.now))

    await documents.expire(int(clock.now) + DAY_S)

    alive = await documents.store("default", store.id)
    assert (alive.is_expired, alive.last_active_at) == (False, int(clock.now) + DAY_S - 1)


async def test_use_of_a_store_that_cannot_be_written_is_not_forgotten(
    documents: DocumentStore, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await a_store(documents, expires_after_days=1)
    documents.touch(store.id, int(clock.now) + DAY_S - 1)

    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_S", 0)
    with closing(sqlite3.connect(tmp_path / "hearth.db", isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StorageError):
            await documents.expire(int(clock.now))
    await documents.expire(int(clock.now) + DAY_S)

    assert not (await documents.store("default", store.id)).is_expired


async def test_a_deleted_store_is_gone_at_once(documents: DocumentStore) -> None:
    store, other = await a_store(documents), await a_store(documents)
    await documents.add_file("default", a_file("file-1"))
    [job] = await documents.add_documents("default", store.id, [("file-1", {}, STATIC)])

    await documents.delete_store("default", store.id)

    assert [each.id for each in (await documents.stores("default"))[0]] == [other.id]
    assert await documents.unfinished() == []
    assert await documents.complete(job.id, *cut("text", [Span(0, 4)])) is None
    for attempt in (documents.store("default", store.id), documents.generation(store.id), documents.vectors(store.id)):
        with pytest.raises(ObjectNotFound):
            await attempt


async def test_what_a_deleted_store_held_is_swept_and_files_stay(documents: DocumentStore, database: Database) -> None:
    store = await a_store(documents)
    await documents.add_file("default", a_file("file-1"))
    await completed(documents, store.id, "file-1", "some text")
    await documents.add_documents("default", store.id, [("file-1", {}, STATIC)], "vsfb_1")

    await documents.delete_store("default", store.id)
    await swept(database)

    for table in ("vector_stores", "documents", "chunks", "parents", "texts", "batches", "sweeps"):
        assert await num_rows(documents, table) == 0
    assert await documents.file_ids() == {"file-1"}


async def test_stores_add_nothing_to_the_schema(documents: DocumentStore, database: Database) -> None:
    """Every connection reads all of it again after each change."""
    num_objects = await num_rows(documents, "sqlite_master")

    for number in range(100):
        store = await a_store(documents)
        if number % 2:
            await documents.delete_store("default", store.id)
    await swept(database)

    assert await num_rows(documents, "sqlite_master") == num_objects


# ---- documents


@pytest.mark.parametrize(
    "attributes",
    [{}, {"n": 3, "x": 1.5, "yes": True, "text": "naïve 😀"}, {'"quoted" $.key': "it's", "big": 2**53, "u": "\ud800"}],
)
async def test_attributes_survive(documents: DocumentStore, attributes: Attributes) -> None:
    store = await a_store(documents)
    await documents.add_file("default", a_file("file-1"))
    [document] = await documents.add_documents("default", store.id, [("file-1", attributes, STATIC)])

    assert document.attributes == attributes
    assert [type(value) for value in document.attributes.values()] == [type(value) for value in attributes.values()]
    assert document.chunking == STATIC


async def test_a_filter_goes_by_the_attributes_of_now(documents: DocumentStore) -> None:
    store = await a_store(documents)
    await documents.add_file("default", a_file("file-1"))
    await completed(documents, store.id, "file-1", "one")
    wanted = parse_filter({"type": "eq", "key": "lang", "value": "de"})
    before = await documents.allowed_chunks(store.id, wanted)

    await documents.set_attributes("default", store.id, "file-1", {"lang": "de"})

    after = await documents.allowed_chunks(store.id, wanted)
    assert [len(before.ids), len(after.ids)] == [0, 1]
    assert await documents.allowed_chunks(store.id, wanted) is after  # nothing was written meanwhile


async def test_a_number_and_a_truth_are_different_filters(documents: DocumentStore) -> None:
    store = await a_store(documents)
    await documents.add_file("default", a_file("file-1"))
    await completed(documents, store.id, "file-1", "one")
    await documents.set_attributes("default", store.id, "file-1", {"n": 1})

    kept = [
        len((await documents.allowed_chunks(store.id, parse_filter({"type": "eq", "key": "n", "value": value}))).ids)
        for value in (True, 1)
    ]

    assert kept == [0, 1]


async def test_attributes_can_be_replaced(documents: DocumentStore) -> None:
    store = await a_store(documents)
    await documents.add_file("default", a_file("file-1"))
    await documents.add_documents("default", store.id, [("file-1", {"a": 1, "b": 2}, STATIC)])

    changed = await documents.set_attributes("default", store.id, "file-1", {"b": "x"})

    assert changed == await documents.document("default", store.id, "file-1")
    assert changed.attributes == {"b": "x"}


LONG_TEXT = "".join(
    chr(0x61 + n % 26) + ("é" if n % 7 == 0 else "😀" if n % 11 == 0 else "\x00\n") for n in range(7000)
)
BORDERS = [border + shift for border in (4096, 8192, 12288) for shift in (-1, 0, 1)]  # of the pieces it is stored in
OFFSETS = st.sampled_from(BORDERS) | st.integers(0, len(LONG_TEXT))


@given(bounds=st.lists(st.tuples(OFFSETS, OFFSETS), min_size=1, max_size=8))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_spans_are_cut_out_of_long_texts_exactly(documents: DocumentStore, bounds: list[tuple[int, int]]) -> None:
    """Texts are stored in pieces, whose borders nobody must notice."""
    spans = [Span(min(pair), max(pair), page=pair[0], heading=f"h{pair[1]}") for pair in bounds]
    store = await a_store(documents)
    if "file-1" not in await documents.file_ids():
        await documents.add_file("default", a_file("file-1"))

    change = await completed(documents, store.id, "file-1", LONG_TEXT, *spans)

    chunks = await documents.chunks(change.added_ids)
    assert [chunk.text for chunk in chunks] == [LONG_TEXT[span.start : span.end] for span in spans]
    assert [chunk.span for chunk in chunks] == spans
    assert [chunk.ordinal for chunk in chunks] == list(range(len(spans)))
    [parent] = await documents.parents([chunks[0].parent_id])
    assert (parent.text, parent.span) == (LONG_TEXT, Span(0, len(LONG_TEXT), page=1, heading="all"))
    assert await documents.document_text("default", store.id, "file-1") == LONG_TEXT


@given(
    length=st.integers(1, 20_000),
    starts=st.lists(st.integers(0, 19_999), unique=True, max_size=5).map(sorted),
    offset=st.integers(0, 19_999),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
async def test_every_place_has_the_page_that_began_before_it(
    documents: DocumentStore, length: int, starts: list[int], offset: int
) -> None:
    pages = [(start, number) for number, start in enumerate((each for each in starts if each < length), start=1)]
    text = "".join(chr(ord("a") + each % 26) for each in range(length))
    file_id, store = secrets.token_hex(8), await a_store(documents)
    await documents.add_file("default", a_file(file_id))
    [document] = await documents.add_documents("default", store.id, [(file_id, {}, STATIC)])
    offset %= length
    parsed, chunked, vectors, hashes = cut(text, [Span(offset, length)])
    change = await documents.complete(document.id, parsed, replace(chunked, pages=tuple(pages)), vectors, hashes)

    assert change is not None
    [chunk] = await documents.chunks(change.added_ids)
    await documents.add_documents("default", store.id, [(file_id, {}, STATIC)])  # the document has another id now
    known = [number for start, number in pages if start <= offset]
    assert await documents.pages([(chunk.id, offset), (10**9, 0)]) == [known[-1] if known else None, None]
    assert (chunk.text, await documents.document_text("default", store.id, file_id)) == (text[offset:], text)


async def test_chunks_come_in_the_order_of_ids_without_what_is_gone(documents: DocumentStore) -> None:
    store = await a_store(documents)
    await documents.add_file("default", a_file("file-1"))
    change = await completed(documents, store.id, "file-1", "one two three", Span(0, 3), Span(4, 7), Span(8, 13))
    first, second, third = change.added_ids.tolist()

    found = await documents.chunks([third, 9999, first, second, first])

    assert [chunk.text for chunk in found] == ["three", "one", "two", "one"]
    assert {(chunk.file_id, chunk.filename) for chunk in found} == {("file-1", "file-1.txt")}
    assert await documents.chunks([]) == []


async def test_what_is_in_progress_is_unfinished(documents: DocumentStore) -> None:
    store = await a_store(documents)
    await documents.add_file("default", a_file("file-1"))
    [document] = await documents.add_documents("default", store.id, [("file-1", {}, STATIC)])

    assert (document.status, document.num_chunks, document.num_chunks_done) == ("in_progress", 0, 0)
    assert await documents.unfinished() == [("default", document)]


async def test_a_completed_document_counts(documents: DocumentStore) -> None:
    store = await a_store(documents)
    await documents.add_file("default", a_file("file-1"))
    change = await completed(documents, store.id, "file-1", "some té×t")

    seen, store = await documents.document("default", store.id, "file-1"), await documents.store("default", store.id)

    assert (seen.status, seen.num_chunks, seen.num_chunks_done, seen.failure) == ("completed", 1, 1, None)
    assert seen.usage_bytes == store.usage_bytes == len("some té×t".encode()) + 2 * DIMENSIONS
    assert (store.generation, store.counts) == (change.generation, StatusCounts(completed=1))
    assert await documents.unfinished() == []


async def test_a_failure_says_why(documents: DocumentStore) -> None:
    store = await a_store(documents)
    await documents.add_file("default", a_file("file-1"))
    [document] = await documents.add_documents("default", store.id, [("file-1", {}, STATIC)])

    assert await documents.fail(document.id, "invalid_file", "no text in it")

    seen = await documents.document("default", store.id, "file-1")
    assert (seen.status, seen.failure) == ("failed", ("invalid_file", "no text in it"))
    assert not await documents.fail(document.id, "server_error", "too late")
    with pytest.raises(Conflict, match="it is failed"):
        await documents.document_text("default", store.id, "file-1")


async def test_a_job_that_is_over_changes_nothing(documents: DocumentStore) -> None:
    store = await a_store(documents)
    for number in range(4):
        await documents.add_file("default", a_file(f"file-{number}"))
    new = [(f"file-{number}", Attributes(), STATIC) for number in range(4)]
    jobs = await documents.add_documents("default", store.id, new, "vsfb_1")
    await documents.remove_document("default", store.id, "file-0")
    await documents.fail(jobs[1].id, "server_error", "x")
    await documents.add_documents("default", store.id, [("file-2", {}, STATIC)])
    await documents.cancel_batch("default", store.id, "vsfb_1")
    before = await documents.store("default", store.id)

    outcomes = [await documents.complete(job.id, *cut("text", [Span(0, 4)])) for job in jobs]
    kept = [await documents.keep_pending(job.id, {b"h": b"v"}) for job in jobs]

    assert (outcomes, kept) == ([None] * 4, [False] * 4)
    assert await documents.store("default", store.id) == before
    assert before.counts == StatusCounts(failed=1, cancelled=1, in_progress=1)


async def test_old_chunks_are_found_until_new_ones_replace_them(documents: DocumentStore) -> None:
    store = await a_store(documents)
    await documents.add_file("default", a_file("file-1"))
    old = await completed(documents, store.id, "file-1", "old text")
    [job] = await documents.add_documents("default", store.id, [("file-1", {"v": 2}, STATIC)])

    [meanwhile] = await documents.chunks(old.added_ids)
    change = await documents.complete(job.id, *cut("new text", [Span(0, 3), Span(4, 8)]))

    assert (meanwhile.text, meanwhile.document_id) == ("old text", job.id)
    assert change is not None and change.removed_ids.tolist() == old.added_ids.tolist()
    _, ids, _ = await documents.vectors(store.id)
    assert ids.tolist() == change.added_ids.tolist()
    assert await documents.document_text("default", store.id, "file-1") == "new text"
    assert (await documents.store("default", store.id)).counts.total == 1


async def test_a_file_named_twice_is_one_document(documents: DocumentStore) -> None:
    store = await a_store(documents)
    await documents.add_file("default", a_file("file-1"))

    added = await documents.add_documents(
        "default", store.id, [("file-1", {"v": 1}, STATIC), ("file-1", {"v": 2}, STATIC)]
    )

    assert [document.attributes for document in added] == [{"v": 2}]


async def test_all_files_are_added_or_none(documents: DocumentStore) -> None:
    store = await a_store(documents)
    await documents.add_file("default", a_file("file-1"))

    with pytest.raises(ObjectNotFound, match="file-9"):
        await documents.add_documents("default", store.id, [("file-1", {}, STATIC), ("file-9", {}, STATIC)], "vsfb_1")

    assert await documents.documents("default", store.id) == ([], False)
    with pytest.raises(ObjectNotFound, match="vsfb_1"):
        await documents.batch("default", store.id, "vsfb_1")


async def test_ids_are_never_given_out_again(documents: DocumentStore) -> None:
    """A job, or an index, may still hold one that is gone."""
    store = await a_store(documents)
    await documents.add_file("default", a_file("file-1"))
    seen: list[int] = []
    for _ in range(3):
        change = await completed(documents, store.id, "file-1", "text")
        seen += change.added_ids.tolist()
        await documents.remove_document("default", store.id, "file-1")

    assert len(set(seen)) == 3


# ---- batches


async def test_a_batch_counts_its_documents(documents: DocumentStore, clock: Clock) -> None:
    store = await a_store(documents)
    for number in range(3):
        await documents.add_file("default", a_file(f"file-{number}"))
    await completed(documents, store.id, "file-0", "text")
    clock.now += 5
    new = [(f"file-{number}", Attributes(), STATIC) for number in (1, 2)]
    job, other = await documents.add_documents("default", store.id, new, "vsfb_1")
    await documents.complete(job.id, *cut("text", [Span(0, 4)]))

    batch = await documents.batch("default", store.id, "vsfb_1")
    listed, _ = await documents.documents("default", store.id, batch_id="vsfb_1", status="completed")

    assert (batch.counts, batch.created_at) == (StatusCounts(completed=1, in_progress=1), clock.now)
    assert [document.id for document in listed] == [job.id]
    assert await documents.cancel_batch("default", store.id, "vsfb_1") == [other.id]
    assert (await documents.batch("default", store.id, "vsfb_1")).counts == StatusCounts(completed=1, cancelled=1)


# ---- vectors that are known


async def test_vectors_are_known_by_what_was_embedded(documents: DocumentStore) -> None:
    store, other = await a_store(documents), await a_store(documents)
    for number in range(2):
        await documents.add_file("default", a_file(f"file-{number}"))
    [job] = await documents.add_documents("default", store.id, [("file-0", {}, STATIC)])
    pending = {b"p" * 16: vector_of(b"p").astype("<f2").tobytes()}
    await documents.keep_pending(job.id, pending)
    _, _, vectors, hashes = cut("text", [Span(0, 4)])
    await completed(documents, store.id, "file-1", "text")

    known = await documents.known_vectors(store.id, [b"p" * 16, hashes[0], b"unknown"])

    assert known == {**pending, hashes[0]: vectors.astype("<f2").tobytes()}
    assert await documents.known_vectors(other.id, [b"p" * 16, hashes[0]]) == {}


@pytest.mark.parametrize("ending", ["complete", "fail", "cancel", "remove", "delete file", "delete store", "expire"])
async def test_nothing_pending_outlives_its_job(documents: DocumentStore, database: Database, ending: str) -> None:
    store = await a_store(documents, expires_after_days=1)
    await documents.add_file("default", a_file("file-1"))
    [job] = await documents.add_documents("default", store.id, [("file-1", {}, STATIC)], "vsfb_1")
    await documents.keep_pending(job.id, {b"h": b"v"})
    await documents.keep_contexts(job.id, {b"k": "context"})

    if ending == "complete":
        await documents.complete(job.id, *cut("text", [Span(0, 4)]))
    elif ending == "fail":
        await documents.fail(job.id, "server_error", "x")
    elif ending == "cancel":
        await documents.cancel_batch("default", store.id, "vsfb_1")
    elif ending == "remove":
        await documents.remove_document("default", store.id, "file-1")
    elif ending == "delete file":
        await documents.delete_file("default", "file-1")
    elif ending == "delete store":
        await documents.delete_store("default", store.id)
    else:
        await documents.expire(2 * DAY_S + 1_000_000)
    await swept(database)

    assert await num_rows(documents, "pending_vectors") == 0
    assert await num_rows(documents, "pending_contexts") == 0


async def test_contexts_are_known_while_they_are_pending_and_when_they_are_stored(documents: DocumentStore) -> None:
    store, other = await a_store(documents), await a_store(documents)
    await documents.add_file("default", a_file("file-1"))
    [job] = await documents.add_documents("default", store.id, [("file-1", {}, STATIC)])
    kept = await documents.keep_contexts(job.id, {b"k": "written"})
    pending = await documents.known_contexts(store.id, [b"k", b"unknown"])
    parsed, chunked, vectors, hashes = cut("text", [Span(0, 4)])
    drafts = tuple(replace(draft, context="written", context_key=b"k") for draft in chunked.chunks)

    change = await documents.complete(job.id, parsed, replace(chunked, chunks=drafts), vectors, hashes)

    assert change is not None
    [chunk] = await documents.chunks(change.added_ids)
    assert (kept, await documents.keep_contexts(job.id, {b"k": "late"})) == (True, False)
    assert pending == await documents.known_contexts(store.id, [b"k", b"unknown"]) == {b"k": "written"}
    assert await documents.known_contexts(other.id, [b"k"]) == {}, "which may be another tenant's"
    assert (chunk.text, chunk.context) == ("text", "written")


async def test_pending_vectors_stay_when_the_job_is_begun_anew(documents: DocumentStore) -> None:
    store = await a_store(documents)
    await documents.add_file("default", a_file("file-1"))
    [job] = await documents.add_documents("default", store.id, [("file-1", {}, STATIC)])
    await documents.keep_pending(job.id, {b"h": b"v"})

    await documents.add_documents("default", store.id, [("file-1", {"v": 2}, STATIC)])

    assert await documents.known_vectors(store.id, [b"h"]) == {b"h": b"v"}


async def test_vectors_are_of_one_moment_and_as_the_change_said(documents: DocumentStore) -> None:
    store = await a_store(documents)
    for number in range(3):
        await documents.add_file("default", a_file(f"file-{number}"))
    changes = [await completed(documents, store.id, f"file-{number}", f"text {number}") for number in range(3)]
    await documents.remove_document("default", store.id, "file-1")

    generation, ids, vectors = await documents.vectors(store.id)

    assert generation == await documents.generation(store.id) == 4
    assert ids.tolist() == [changes[0].added_ids[0], changes[2].added_ids[0]]
    np.testing.assert_array_equal(vectors, np.concatenate([changes[0].vectors, changes[2].vectors]))
    assert (vectors.dtype, ids.dtype) == (np.float16, np.int64)


async def test_an_empty_store_has_no_vectors(documents: DocumentStore) -> None:
    store = await a_store(documents)

    generation, ids, vectors = await documents.vectors(store.id)

    assert (generation, ids.shape, vectors.shape) == (0, (0,), (0, DIMENSIONS))


# ---- expiry


async def test_what_is_past_its_time_goes(documents: DocumentStore, clock: Clock) -> None:
    store = await a_store(documents, expires_after_days=2)
    other = await a_store(documents)
    await documents.add_file("default", a_file("file-1", expires_at=int(clock.now) + 10))
    await documents.add_file("default", a_file("file-2"))
    _, kept = [await completed(documents, each.id, "file-2", "text") for each in (store, other)]
    soon = await completed(documents, other.id, "file-1", "text")

    assert await documents.expire(int(clock.now) + 9) == NOTHING
    expired = await documents.expire(int(clock.now) + 2 * DAY_S)

    assert (expired.file_ids, expired.store_ids) == (("file-1",), (store.id,))
    removed = {change.store_id: change.removed_ids.tolist() for change in expired.changes}
    assert removed == {other.id: soon.added_ids.tolist()}
    assert await documents.file_ids() == {"file-2"}
    assert (await documents.vectors(other.id))[1].tolist() == kept.added_ids.tolist()
    assert await documents.expire(int(clock.now) + 2 * DAY_S) == NOTHING


async def test_what_an_expired_store_held_is_swept(documents: DocumentStore, database: Database, clock: Clock) -> None:
    store = await a_store(documents, expires_after_days=1)
    await documents.add_file("default", a_file("file-1"))
    await completed(documents, store.id, "file-1", "text")
    await documents.expire(int(clock.now) + DAY_S)

    await swept(database)

    for table in ("chunks", "parents", "texts", "sweeps"):
        assert await num_rows(documents, table) == 0
    assert (await documents.document("default", store.id, "file-1")).usage_bytes == 0
    assert await database.write(findings) == {}


async def test_a_store_may_be_deleted_and_its_files_too_while_it_is_swept(
    documents: DocumentStore, database: Database, clock: Clock
) -> None:
    store = await a_store(documents, expires_after_days=1)
    for number in range(3):
        await documents.add_file("default", a_file(f"file-{number}"))
        await completed(documents, store.id, f"file-{number}", "text")
    await documents.expire(int(clock.now) + DAY_S)
    steps = iter([False] * 6)
    await database.write(lambda db: sweeps.sweep(db, lambda: next(steps, True)))

    await documents.delete_file("default", "file-2")
    await documents.delete_store("default", store.id)
    await documents.delete_file("default", "file-1")
    await swept(database)

    for table in ("vector_stores", "documents", "chunks", "parents", "texts", "removed WHERE list LIKE 'documents%'"):
        assert await num_rows(documents, table) == 0
    assert await documents.file_ids() == {"file-0"}


async def test_an_expired_store_is_listed_with_its_documents_but_holds_nothing(
    documents: DocumentStore, clock: Clock
) -> None:
    """So that a client can make a new one of the same files."""
    store = await a_store(documents, expires_after_days=1)
    for number in range(2):
        await documents.add_file("default", a_file(f"file-{number}"))
    await completed(documents, store.id, "file-0", "text")
    await documents.add_documents("default", store.id, [("file-1", {}, STATIC)])

    await documents.expire(int(clock.now) + DAY_S)

    seen = await documents.store("default", store.id)
    assert (seen.is_expired, seen.usage_bytes) == (True, 0)
    assert seen.counts == StatusCounts(completed=1, cancelled=1)
    with pytest.raises(Conflict, match="has expired"):
        await documents.add_documents("default", store.id, [("file-0", {}, STATIC)])
    with pytest.raises(Conflict, match="has expired"):
        await documents.document_text("default", store.id, "file-0")


# ---- tenants


async def test_tenants_never_see_each_other(documents: DocumentStore) -> None:
    store = await a_store(documents, "a")
    await documents.add_file("a", a_file("file-1"))
    await documents.add_file("b", a_file("file-2"))
    await documents.add_documents("a", store.id, [("file-1", {}, STATIC)], "vsfb_1")
    own = await a_store(documents, "b")

    refused = [
        documents.file("b", "file-1"),
        documents.delete_file("b", "file-1"),
        documents.store("b", store.id),
        documents.update_store("b", store.id, name="", metadata={}, expires_after_days=None),
        documents.delete_store("b", store.id),
        documents.add_documents("b", store.id, [("file-2", {}, STATIC)]),
        documents.add_documents("b", own.id, [("file-1", {}, STATIC)]),
        documents.document("b", store.id, "file-1"),
        documents.document("b", own.id, "file-1"),
        documents.documents("b", store.id),
        documents.documents("b", own.id, batch_id="vsfb_1"),
        documents.set_attributes("b", store.id, "file-1", {}),
        documents.remove_document("b", store.id, "file-1"),
        documents.document_text("b", store.id, "file-1"),
        documents.batch("b", store.id, "vsfb_1"),
        documents.batch("b", own.id, "vsfb_1"),
        documents.cancel_batch("b", store.id, "vsfb_1"),
        documents.cancel_batch("b", own.id, "vsfb_1"),
    ]

    for call in refused:
        with pytest.raises(ObjectNotFound):
            await call
    assert [file.id for file in (await documents.files("b"))[0]] == ["file-2"]
    assert [each.id for each in (await documents.stores("b"))[0]] == [own.id]
    assert (await documents.store("a", store.id)).counts == StatusCounts(in_progress=1)


# ---- a full disk


async def test_a_document_that_does_not_fit_leaves_all_as_it_was(documents: DocumentStore, database: Database) -> None:
    store = await a_store(documents)
    for number in range(2):
        await documents.add_file("default", a_file(f"file-{number}"))
    change = await completed(documents, store.id, "file-0", "small")
    [job] = await documents.add_documents("default", store.id, [("file-1", {}, STATIC)])
    [(num_pages,)] = await documents.read(lambda db: db.execute("PRAGMA page_count").fetchall())
    await database.write(lambda db: db.execute(f"PRAGMA max_page_count = {num_pages + 20}").fetchall())
    large = cut("large " * 50_000, [Span(start, start + 600) for start in range(0, 299_000, 600)])

    with pytest.raises(StorageFull):
        await documents.complete(job.id, *large)

    assert (await documents.vectors(store.id))[1].tolist() == change.added_ids.tolist()
    assert (await documents.document("default", store.id, "file-1")).status == "in_progress"
    await database.write(lambda db: db.execute("PRAGMA max_page_count = 1000000").fetchall())
    assert await documents.complete(job.id, *large) is not None


# ---- pages


@given(
    num_files=st.integers(0, 9),
    limit=st.integers(1, 5),
    order=st.sampled_from(["asc", "desc"]),
    after=st.none() | st.integers(0, 8),
    before=st.none() | st.integers(0, 8),
    deleted=st.sets(st.integers(0, 8)),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_pages_are_slices_of_the_list(
    documents: DocumentStore,
    num_files: int,
    limit: int,
    order: Literal["asc", "desc"],
    after: int | None,
    before: int | None,
    deleted: set[int],
) -> None:
    """A list is a tenant's: each example has one of its own."""
    tenant = secrets.token_hex(4)
    for number in range(num_files):
        await documents.add_file(tenant, a_file(f"{tenant}-{number}"))
    for number in deleted & set(range(num_files)):
        await documents.delete_file(tenant, f"{tenant}-{number}")
    page = Page(
        limit=limit,
        order=order,
        after=None if after is None else f"{tenant}-{after}",
        before=None if before is None else f"{tenant}-{before}",
    )

    if {after, before} - {None} - set(range(num_files)):
        with pytest.raises(InvalidRequest, match="begin with its first page"):
            await documents.files(tenant, page=page)
        return
    found, has_more = await documents.files(tenant, page=page)

    numbers = sorted(range(num_files), reverse=order == "desc")
    start = 0 if after is None else numbers.index(after) + 1
    stop = num_files if before is None else numbers.index(before)
    between = [number for number in numbers[start:stop] if number not in deleted]
    wanted = between[-limit:] if before is not None and after is None else between[:limit]
    assert [file.id for file in found] == [f"{tenant}-{number}" for number in wanted]
    assert has_more == (len(between) > limit)


async def test_a_client_may_delete_what_it_pages_through(documents: DocumentStore) -> None:
    store = await a_store(documents)
    for number in range(7):
        await documents.add_file("default", a_file(f"file-{number}"))
    await documents.add_documents("default", store.id, [(f"file-{number}", {}, STATIC) for number in range(7)])

    seen: list[str] = []
    page, has_more = Page(limit=3), True
    while has_more:
        found, has_more = await documents.documents("default", store.id, page=page)
        for document in found:
            await documents.remove_document("default", store.id, document.file_id)
            seen.append(document.file_id)
        page = Page(limit=3, after=seen[-1])

    assert seen == [f"file-{number}" for number in reversed(range(7))]


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_a_client_may_add_again_what_it_pages_through(
    documents: DocumentStore, order: Literal["asc", "desc"]
) -> None:
    store = await a_store(documents)
    names = [f"file-{number}" for number in range(7)]
    for name in names:
        await documents.add_file("default", a_file(name))
    await documents.add_documents("default", store.id, [(name, {}, STATIC) for name in names])

    seen: list[str] = []
    page, has_more = Page(limit=3, order=order), True
    while has_more and len(seen) < 2 * len(names):
        found, has_more = await documents.documents("default", store.id, page=page)
        seen += [document.file_id for document in found]
        await documents.add_documents("default", store.id, [(seen[-1], {}, STATIC), (seen[0], {}, STATIC)])
        page = Page(limit=3, order=order, after=seen[-1])

    assert seen == sorted(names, reverse=order == "desc")


async def test_a_document_that_was_added_again_and_is_gone_still_is_a_cursor(documents: DocumentStore) -> None:
    store = await a_store(documents)
    for name in ("file-0", "file-1", "file-2"):
        await documents.add_file("default", a_file(name))
        await documents.add_documents("default", store.id, [(name, {}, STATIC)])
    await documents.add_documents("default", store.id, [("file-1", {}, STATIC)])

    await documents.remove_document("default", store.id, "file-1")

    found, _ = await documents.documents("default", store.id, page=Page(after="file-1"))
    assert [document.file_id for document in found] == ["file-0"]
