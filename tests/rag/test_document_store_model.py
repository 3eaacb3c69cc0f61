"""Random operations on a document store, side by side with dictionaries in which it is obvious what must happen."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from server.errors import Conflict, Reindexed
from server.rag.document_store import DocumentStore
from server.rag.documents import ChunkChange, ChunkingStrategy, ReindexRecord, Span, Vectors
from server.rag.paging import Page
from server.rag.postings import read_postings
from server.rag.reindex_store import ReindexStore
from server.rag.rows import stores, sweeps
from server.rag.rows.editions import NewModel
from server.rag.terms import query_terms
from server.storage.database import Database
from tests.fakes.document_check import findings
from tests.fakes.documents import DIMENSIONS, a_file, a_store, cut, swept, vector_of

T = TypeVar("T")

DAY_S = 86_400
COUNT_UNTIDY = "SELECT (SELECT count(*) FROM sweeps) + (SELECT count(*) FROM edition_vectors)"
WORDS = ["alpha", "running", "naïve", "日本", "😀", "x2"]
STEMS = {"alpha": "alphas", "running": "runs", "naïve": "naive", "日本": "日本", "x2": "X2"}
"""Words that are there, and a form under which a search must find them."""

TENANTS = st.sampled_from(["a", "b"])
PIECES = st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=12), min_size=1, max_size=4)
PICK = st.integers(0, 10**6)


@dataclass
class OldFile:
    tenant: str
    expires_at: int | None


@dataclass
class OldDocument:
    id: int
    status: str = "in_progress"
    attributes: dict[str, object] = field(default_factory=dict)
    batch_id: str | None = None
    chunks: list[str] = field(default_factory=list)
    pending: dict[bytes, bytes] = field(default_factory=dict)


@dataclass
class OldStore:
    tenant: str
    expires_at: int | None
    is_expired: bool = False
    generation: int = 0
    edition: int = 0
    model: str = "f"
    reindex: ReindexRecord | None = None
    documents: dict[str, OldDocument] = field(default_factory=dict)
    followed_ids: set[int] = field(default_factory=set)  # by an index that hears of changes alone


class DocumentStoreModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.database = Database.open(Path(self.folder.name) / "hearth.db")
        self.now = 1_000_000
        self.store = DocumentStore(self.database, clock=lambda: self.now)
        self.reindexes = ReindexStore(self.database, clock=lambda: self.now)
        self.files: dict[str, OldFile] = {}
        self.stores: dict[str, OldStore] = {}
        self.num_names = 0
        self.job_ids: list[int] = []

    def teardown(self) -> None:
        self.do(swept(self.database))
        found = self.do(self.database.write(findings))
        [(num_left,)] = self.do(self.database.read(lambda db: db.execute(COUNT_UNTIDY).fetchall()))
        has_reindex = any(store.reindex for store in self.stores.values())
        assert num_left == 0 or has_reindex
        self.database.close()
        self.runner.close()
        self.folder.cleanup()
        assert found == {}

    # ---- what happens

    @initialize()
    def begin(self) -> None:
        for tenant in ("a", "b"):
            self.create_store(tenant, 2 if tenant == "b" else None)
            self.add_file(tenant, None)
            self.add_file(tenant, 2)

    @rule(tenant=TENANTS, days=st.none() | st.integers(1, 5))
    def add_file(self, tenant: str, days: int | None) -> None:
        expires_at = None if days is None else self.now + days * DAY_S
        file_id = self.new_name("file")
        self.do(self.store.add_file(tenant, a_file(file_id, expires_at=expires_at)))
        self.files[file_id] = OldFile(tenant, expires_at)

    @rule(tenant=TENANTS, days=st.none() | st.integers(1, 5))
    def create_store(self, tenant: str, days: int | None) -> None:
        record = self.do(a_store(self.store, tenant, expires_after_days=days))
        self.stores[record.id] = OldStore(tenant, None if days is None else self.now + days * DAY_S)

    @precondition(lambda self: self.live_stores())
    @rule(which=PICK, picks=st.lists(PICK, min_size=1, max_size=3), with_batch=st.booleans(), value=st.integers())
    def add_documents(self, which: int, picks: list[int], with_batch: bool, value: int) -> None:
        store_id, store = pick(self.live_stores(), which)
        own = [file_id for file_id, file in self.files.items() if file.tenant == store.tenant]
        file_ids = list(dict.fromkeys(own[number % len(own)] for number in picks)) if own else []
        batch_id = self.new_name("vsfb") if with_batch else None
        attributes = {"value": value}

        added = self.do(
            self.store.add_documents(
                store.tenant, store_id, [(each, attributes, ChunkingStrategy()) for each in file_ids], batch_id
            )
        )

        assert [document.file_id for document in added] == file_ids
        for document in added:
            assert document.id not in self.job_ids
            old = store.documents.get(document.file_id, OldDocument(0))
            store.documents[document.file_id] = OldDocument(  # in its old place, if it has one
                document.id, "in_progress", attributes, batch_id, old.chunks, old.pending
            )
            self.job_ids.append(document.id)

    @precondition(lambda self: self.job_ids)
    @rule(which=PICK, pieces=PIECES)
    def complete_any(self, which: int, pieces: list[list[str]]) -> None:
        self.complete(pick(self.job_ids, which), pieces)

    @precondition(lambda self: self.running_ids())
    @rule(which=PICK, pieces=PIECES)
    def complete_one_that_runs(self, which: int, pieces: list[list[str]]) -> None:
        self.complete(pick(self.running_ids(), which), pieces)

    @precondition(lambda self: self.live_stores())
    @rule(which=PICK, number=PICK, pieces=PIECES)
    def add_and_complete(self, which: int, number: int, pieces: list[list[str]]) -> None:
        """Often of a file that is there already."""
        self.add_documents(which, [number], with_batch=False, value=number)
        for job_id in sorted(self.running_ids())[-1:]:
            self.complete(job_id, pieces)

    @precondition(lambda self: self.job_ids)
    @rule(which=PICK, number=st.integers(0, 5))
    def keep_pending(self, which: int, number: int) -> None:
        job_id, document = pick(self.job_ids, which), self.running(pick(self.job_ids, which))
        vectors = {b"hash%d" % number: b"vector%d" % number}

        kept = self.do(self.store.keep_pending(job_id, vectors, edition=self.store_of(job_id).edition))

        assert kept == (document is not None)
        if document is not None:
            document.pending |= vectors

    @precondition(lambda self: self.job_ids)
    @rule(which=PICK)
    def fail(self, which: int) -> None:
        job_id, document = pick(self.job_ids, which), self.running(pick(self.job_ids, which))

        assert self.do(self.store.fail(job_id, "server_error", "reason")) == (document is not None)

        if document is not None:
            document.status, document.pending = "failed", {}

    @precondition(lambda self: self.all_batches())
    @rule(which=PICK)
    def cancel_batch(self, which: int) -> None:
        store_id, batch_id = pick(self.all_batches(), which)
        store = self.stores[store_id]

        cancelled = self.do(self.store.cancel_batch(store.tenant, store_id, batch_id))

        running = [
            each for each in store.documents.values() if (each.batch_id, each.status) == (batch_id, "in_progress")
        ]
        assert sorted(cancelled) == sorted(each.id for each in running)
        for document in running:
            document.status, document.pending = "cancelled", {}

    @precondition(lambda self: self.all_documents())
    @rule(which=PICK, value=st.integers())
    def set_attributes(self, which: int, value: int) -> None:
        store_id, file_id = pick(self.all_documents(), which)
        store = self.stores[store_id]
        self.do(self.store.set_attributes(store.tenant, store_id, file_id, {"value": value}))
        store.documents[file_id].attributes = {"value": value}

    @precondition(lambda self: self.all_documents())
    @rule(which=PICK)
    def remove_document(self, which: int) -> None:
        store_id, file_id = pick(self.all_documents(), which)
        store = self.stores[store_id]
        change = self.do(self.store.remove_document(store.tenant, store_id, file_id))
        del store.documents[file_id]
        self.follow([change])

    @rule(which=PICK, is_store=st.booleans())
    def delete_file_or_store(self, which: int, is_store: bool) -> None:
        if is_store and self.stores:
            self.delete_store(which)
        elif self.files:
            self.delete_file(which)

    def delete_file(self, which: int) -> None:
        file_id, file = pick(list(self.files.items()), which)
        changes = self.do(self.store.delete_file(file.tenant, file_id))
        self.forget_file(file_id)
        self.follow(changes)

    def delete_store(self, which: int) -> None:
        store_id, store = pick(list(self.stores.items()), which)
        self.do(self.store.delete_store(store.tenant, store_id))
        del self.stores[store_id]

    @rule(days=st.integers(0, 1))
    def expire(self, days: int) -> None:
        self.now += days * DAY_S

        expired = self.do(self.store.expire(self.now))

        past = [
            each for each, file in self.files.items() if file.expires_at is not None and file.expires_at <= self.now
        ]
        assert sorted(expired.file_ids) == sorted(past)
        for file_id in past:
            self.forget_file(file_id)
        self.follow(expired.changes)
        ended = [store_id for store_id, store in self.stores.items() if self.expire_store(store)]
        assert sorted(expired.store_ids) == sorted(ended)

    @rule(num_steps=st.integers(1, 40))
    def sweep(self, num_steps: int) -> None:
        steps = iter([False] * num_steps)
        self.do(self.database.write(lambda db: sweeps.sweep(db, lambda: next(steps, True))))

    # ---- reindexing

    @precondition(lambda self: self.live_stores())
    @rule(which=PICK, model=st.sampled_from(["m1", "m2"]))
    def begin_reindex(self, which: int, model: str) -> None:
        store_id, store = pick(self.live_stores(), which)
        new = NewModel(embedding_model=model, fingerprint=model, dimensions=DIMENSIONS)
        if store.reindex is not None and store.reindex.fingerprint != model:
            with pytest.raises(Conflict):
                self.do(self.reindexes.begin(store.tenant, store_id, new))
            return

        begun = self.do(self.reindexes.begin(store.tenant, store_id, new))

        assert begun.status == ("completed" if store.model == model else "in_progress")
        store.reindex = None if store.model == model else begun

    @precondition(lambda self: self.reindexed_stores())
    @rule(which=PICK, num_chunks=st.integers(1, 5))
    def embed_some(self, which: int, num_chunks: int) -> None:
        _, store = pick(self.reindexed_stores(), which)
        assert store.reindex is not None
        edition, model = store.reindex.edition, store.reindex.fingerprint
        chunks = self.do(self.reindexes.next_chunks(edition, after_id=0, num_chunks=num_chunks))
        vectors = {chunk_id: vector_of(f"{model} {text}".encode()).astype("<f2").tobytes() for chunk_id, text in chunks}
        self.do(self.reindexes.keep(edition, vectors | {10**9: b""}))  # the last one has been removed meanwhile

    @precondition(lambda self: self.reindexed_stores())
    @rule(which=PICK)
    def swap(self, which: int) -> None:
        _, store = pick(self.reindexed_stores(), which)
        assert store.reindex is not None
        left = self.do(self.reindexes.next_chunks(store.reindex.edition, after_id=0, num_chunks=1))

        swapped = self.do(self.reindexes.swap(store.reindex.edition))

        assert (swapped is None) == bool(left)
        if swapped is not None:
            store.generation += 1
            assert (swapped.generation, set(swapped.chunk_ids.tolist())) == (store.generation, store.followed_ids)
            store.edition, store.model, store.reindex = store.reindex.edition, store.reindex.fingerprint, None
            for document in store.documents.values():
                document.pending = {}

    @precondition(lambda self: self.reindexed_stores())
    @rule(which=PICK)
    def cancel_reindex(self, which: int) -> None:
        store_id, store = pick(self.reindexed_stores(), which)
        cancelled = self.do(self.reindexes.cancel(store.tenant, store_id))
        assert cancelled.status == "cancelled"
        store.reindex = None

    # ---- what must hold

    @invariant()
    def records_are_the_same(self) -> None:
        for tenant in ("a", "b"):
            page = Page(limit=100, order="asc")
            files, _ = self.do(self.store.files(tenant, page=page))
            assert [file.id for file in files] == [key for key, file in self.files.items() if file.tenant == tenant]
            stores, _ = self.do(self.store.stores(tenant, page))
            assert [each.id for each in stores] == [key for key, each in self.stores.items() if each.tenant == tenant]
            for record in stores:
                store = self.stores[record.id]
                assert (record.generation, record.is_expired) == (store.generation, store.is_expired)
                assert (record.edition, record.fingerprint) == (store.edition, store.model)
                assert record.counts.total == len(store.documents)
                documents, _ = self.do(self.store.documents(tenant, record.id, page=page))
                seen = [(each.id, each.file_id, each.status, each.attributes, each.batch_id) for each in documents]
                assert seen == [
                    (each.id, file_id, each.status, each.attributes, each.batch_id)
                    for file_id, each in store.documents.items()
                ]
        running = {document.id for _, document in self.do(self.store.unfinished())}
        assert running == set(self.running_ids())

    @invariant()
    def chunks_vectors_and_words_are_the_same(self) -> None:
        for store_id, store in self.stores.items():
            if store.is_expired:
                continue  # who may still hold what is being swept
            generation, ids, vectors = self.do(self.store.vectors(store_id))
            assert generation == store.generation
            assert set(ids.tolist()) == store.followed_ids
            chunks = self.do(self.store.chunks(ids))
            by_document = {document.id: document.chunks for document in store.documents.values() if document.chunks}
            assert {chunk.document_id for chunk in chunks} == by_document.keys()
            for document_id, texts in by_document.items():
                mine = [chunk for chunk in chunks if chunk.document_id == document_id]
                assert [chunk.text for chunk in sorted(mine, key=lambda chunk: chunk.ordinal)] == texts
            expected = [embedded(store.model, chunk.text) for chunk in chunks]
            assert np.array_equal(vectors, np.array(expected, np.float32).reshape(vectors.shape))
            self.words_are_found(store_id, {chunk.id: chunk.text for chunk in chunks})
            pending = {key: value for document in store.documents.values() for key, value in document.pending.items()}
            hashes = [b"hash%d" % number for number in range(6)]
            assert self.do(self.store.known_vectors(store_id, hashes, edition=store.edition)) == pending

    def words_are_found(self, store_id: str, texts: dict[int, str]) -> None:
        def search(db: sqlite3.Connection) -> dict[str, set[int]]:
            postings = read_postings(db, stores.row_of_any(db, store_id))
            assert set(postings.ids.tolist()) == texts.keys()
            terms = {word: next(iter(query_terms(form))) for word, form in STEMS.items()}
            spans = {word: postings.span(term) for word, term in terms.items()}
            return {word: set(postings.ids[postings.positions[span]].tolist()) for word, span in spans.items()}

        assert self.do(self.store.read(search)) == {
            word: {chunk_id for chunk_id, text in texts.items() if word in text.split()} for word in STEMS
        }

    # ---- helpers

    def complete(self, job_id: int, pieces: list[list[str]]) -> None:
        texts = [" ".join(piece) for piece in pieces]
        starts = np.cumsum([0, *(len(text) + 1 for text in texts)]).tolist()
        spans = [Span(start, start + len(text)) for start, text in zip(starts, texts, strict=False)]
        parsed, chunked, _, hashes = cut("\n".join(texts), spans)
        store, document = self.store_of(job_id), self.running(job_id)
        vectors = np.array([embedded(store.model, text) for text in texts], np.float32)
        if document is not None:
            with pytest.raises(Reindexed):
                self.do(self.store.complete(job_id, parsed, chunked, vectors, hashes, edition=store.edition + 1))

        change = self.do(self.store.complete(job_id, parsed, chunked, vectors, hashes, edition=store.edition))

        assert (change is None) == (document is None)
        if change is not None and document is not None:
            document.status, document.chunks, document.pending = "completed", texts, {}
            self.follow([change])

    def do(self, work: Awaitable[T]) -> T:
        async def wait() -> T:
            return await work

        return self.runner.run(wait())

    def new_name(self, prefix: str) -> str:
        self.num_names += 1
        return f"{prefix}-{self.num_names}"

    def running_ids(self) -> list[int]:
        return [job_id for job_id in self.job_ids if self.running(job_id) is not None]

    def running(self, job_id: int) -> OldDocument | None:
        documents = [document for store in self.stores.values() for document in store.documents.values()]
        return next((each for each in documents if (each.id, each.status) == (job_id, "in_progress")), None)

    def store_of(self, job_id: int) -> OldStore:
        """The store that a job belongs to; of one that is over, any."""
        documents = ((store, each) for store in self.stores.values() for each in store.documents.values())
        return next((store for store, each in documents if each.id == job_id), OldStore("", None))

    def reindexed_stores(self) -> list[tuple[str, OldStore]]:
        return [(store_id, store) for store_id, store in self.stores.items() if store.reindex is not None]

    def live_stores(self) -> list[tuple[str, OldStore]]:
        return [(store_id, store) for store_id, store in self.stores.items() if not store.is_expired]

    def all_documents(self) -> list[tuple[str, str]]:
        return [(store_id, file_id) for store_id, store in self.stores.items() for file_id in store.documents]

    def all_batches(self) -> list[tuple[str, str]]:
        named = {
            (store_id, document.batch_id): None
            for store_id, store in self.stores.items()
            for document in store.documents.values()
            if document.batch_id is not None
        }
        return [(store_id, batch_id) for store_id, batch_id in named if batch_id is not None]

    def forget_file(self, file_id: str) -> None:
        del self.files[file_id]
        for store in self.stores.values():
            store.documents.pop(file_id, None)

    def expire_store(self, store: OldStore) -> bool:
        if store.expires_at is None or store.is_expired or store.expires_at > self.now:
            return False
        store.is_expired, store.reindex = True, None
        for document in store.documents.values():
            document.chunks, document.pending = [], {}
            if document.status == "in_progress":
                document.status = "cancelled"
        return True

    def follow(self, changes: Sequence[ChunkChange]) -> None:
        """Do what an index does: each change is of the next generation, and takes away only what was there."""
        for change in changes:
            store = self.stores[change.store_id]
            store.generation += 1
            assert change.generation == store.generation
            removed = set(change.removed_ids.tolist())
            assert removed <= store.followed_ids or store.is_expired
            store.followed_ids = (store.followed_ids - removed) | set(change.added_ids.tolist())


def embedded(model: str, text: str) -> Vectors:
    return vector_of(f"{model} {text}".encode())


def pick(choices: Sequence[T], which: int) -> T:
    return choices[which % len(choices)]


DocumentStoreModel.TestCase.settings = settings(
    max_examples=20, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
TestDocumentStore = DocumentStoreModel.TestCase
