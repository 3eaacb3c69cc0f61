"""Services of files and vector stores whose answers a test writes down, and which note what they were asked."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from server.errors import Conflict, HearthError, ObjectNotFound, RequestTooLarge
from server.rag.documents import (
    Attributes,
    BatchRecord,
    ChunkingStrategy,
    DocumentRecord,
    FileRecord,
    StatusCounts,
    StoreRecord,
)
from server.rag.evaluation import Judgements
from server.rag.paging import Page
from server.rag.search import SearchOptions, SearchOutcome
from server.services.evaluation import Configuration, Evaluation, KnownItems
from server.services.files import UploadDetails

FILE = FileRecord(
    id="file-1", filename="a.txt", purpose="assistants", num_bytes=5, sha256="ab" * 32, created_at=1_700_000_000
)
STORE = StoreRecord(
    id="vs_1",
    name="notes",
    description="",
    metadata={},
    created_at=1_700_000_000,
    last_active_at=1_700_000_100,
    expires_after_days=None,
    embedding_model="embedder",
    fingerprint="f",
    dimensions=2,
    chunking=ChunkingStrategy(),
    generation=1,
    usage_bytes=10,
    counts=StatusCounts(completed=1),
)
DOCUMENT = DocumentRecord(
    id=1,
    store_id="vs_1",
    file_id="file-1",
    filename="a.txt",
    batch_id=None,
    status="completed",
    failure=None,
    attributes={"year": 1999},
    chunking=ChunkingStrategy(),
    created_at=1_700_000_000,
    usage_bytes=10,
    num_chunks=1,
    num_chunks_done=1,
)
BATCH = BatchRecord(id="vsfb_1", store_id="vs_1", created_at=1_700_000_000, counts=StatusCounts(completed=1))


@dataclass
class FakeFileService:
    """Keeps contents in memory.

    Attributes:
        contents: Of each upload that was complete and well described.
        largest_chunk: In bytes, of all uploads.
        folder: Where `content` finds files, each under its id.
        used: Ids of files that a vector store has.
    """

    folder: Path = Path("nowhere")
    max_bytes: int = 1 << 20
    contents: list[bytes] = field(default_factory=list)
    details: list[UploadDetails] = field(default_factory=list)
    pages: list[tuple[str | None, Page]] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    records: list[FileRecord] = field(default_factory=lambda: [FILE])
    has_more: bool = False
    largest_chunk: int = 0

    async def upload(
        self, _tenant: str, chunks: AsyncIterator[bytes], details: Callable[[], UploadDetails]
    ) -> FileRecord:
        content = b""
        async for chunk in chunks:
            self.largest_chunk = max(self.largest_chunk, len(chunk))
            content += chunk
            if len(content) > self.max_bytes:
                raise RequestTooLarge("the file is too large", param="file")
        told = details()
        self.details.append(told)
        self.contents.append(content)
        return FileRecord(
            id="file-2",
            filename=told.filename,
            purpose=told.purpose,
            num_bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            created_at=1_700_000_000,
            expires_at=None if told.expires_after_s is None else 1_700_000_000 + told.expires_after_s,
        )

    async def list(self, _tenant: str, *, purpose: str | None, page: Page) -> tuple[list[FileRecord], bool]:
        self.pages.append((purpose, page))
        return self.records, self.has_more

    async def get(self, _tenant: str, file_id: str) -> FileRecord:
        for record in self.records:
            if record.id == file_id:
                return record
        raise ObjectNotFound(f"there is no file {file_id!r}")

    async def content(self, tenant: str, file_id: str) -> tuple[FileRecord, Path]:
        return await self.get(tenant, file_id), self.folder / file_id

    async def delete(self, tenant: str, file_id: str, *, if_unused: bool = False) -> None:
        if if_unused and file_id in self.used:
            raise Conflict(f"file {file_id!r} is in a vector store")
        self.deleted.append((await self.get(tenant, file_id)).id)


@dataclass
class FakeEvaluationService:
    """Gives `answer`, and notes each call as (store, questions, configurations, other options).

    Attributes:
        gate: When given, the answer waits for it.
        cancelled: Set when a call is cancelled.
    """

    answer: Evaluation | None = None
    gate: asyncio.Event | None = None
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    calls: list[tuple[str, Any, Any, dict[str, Any]]] = field(default_factory=list)

    async def evaluate(
        self,
        _tenant: str,
        store_id: str,
        questions: Judgements | KnownItems,
        configurations: Sequence[Configuration],
        **options: Any,
    ) -> Evaluation:
        self.calls.append((store_id, questions, configurations, options))
        self.begun.set()
        try:
            if self.gate is not None:
                await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        assert self.answer is not None
        return self.answer


@dataclass
class FakeVectorStoreService:
    """Answers with the records it was given, and notes each call as (name, arguments, keyword arguments)."""

    store: StoreRecord = STORE
    record: DocumentRecord = DOCUMENT
    batch_record: BatchRecord = BATCH
    text: str = "some text"
    outcome: SearchOutcome = field(default_factory=lambda: SearchOutcome(queries=(), hits=()))
    has_more: bool = False
    error: HearthError | None = None
    gate: asyncio.Event | None = None
    page_at: dict[tuple[int, int], int] = field(default_factory=dict)
    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)

    @property
    def last(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        return self.calls[-1]

    @property
    def last_search(self) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        return [call for call in self.calls if call[0] == "search_together"][-1]

    def _note(self, method: str, /, *arguments: Any, **options: Any) -> None:
        self.calls.append((method, arguments, options))
        if self.error is not None:
            raise self.error

    async def create(self, _tenant: str, **options: Any) -> StoreRecord:
        self._note("create", **options)
        return self.store

    async def list(self, _tenant: str, page: Page) -> tuple[list[StoreRecord], bool]:
        self._note("list", page)
        return [self.store], self.has_more

    async def get(self, _tenant: str, store_id: str) -> StoreRecord:
        self._note("get", store_id)
        return self.store

    async def id_of(self, _tenant: str, name: str) -> str:
        self._note("id_of", name)
        return f"id of {name}"

    async def update(self, _tenant: str, store_id: str, **changes: Any) -> StoreRecord:
        self._note("update", store_id, **changes)
        return self.store

    async def delete(self, _tenant: str, store_id: str) -> None:
        self._note("delete", store_id)

    async def add_file(self, _tenant: str, store_id: str, file_id: str, **options: Any) -> DocumentRecord:
        self._note("add_file", store_id, file_id, **options)
        return self.record

    async def documents(self, _tenant: str, store_id: str, **options: Any) -> tuple[list[DocumentRecord], bool]:
        self._note("documents", store_id, **options)
        return [self.record], self.has_more

    async def document(self, _tenant: str, store_id: str, file_id: str) -> DocumentRecord:
        self._note("document", store_id, file_id)
        return self.record

    async def set_attributes(self, _tenant: str, store_id: str, file_id: str, attributes: Attributes) -> DocumentRecord:
        self._note("set_attributes", store_id, file_id, attributes)
        return self.record

    async def remove_document(self, _tenant: str, store_id: str, file_id: str) -> None:
        self._note("remove_document", store_id, file_id)

    async def document_text(self, _tenant: str, store_id: str, file_id: str) -> str:
        self._note("document_text", store_id, file_id)
        return self.text

    async def create_batch(
        self, _tenant: str, store_id: str, files: Sequence[tuple[str, Attributes, ChunkingStrategy | None]]
    ) -> BatchRecord:
        self._note("create_batch", store_id, list(files))
        return self.batch_record

    async def batch(self, _tenant: str, store_id: str, batch_id: str) -> BatchRecord:
        self._note("batch", store_id, batch_id)
        return self.batch_record

    async def cancel_batch(self, _tenant: str, store_id: str, batch_id: str) -> BatchRecord:
        self._note("cancel_batch", store_id, batch_id)
        return self.batch_record

    async def search(
        self, _tenant: str, store_id: str, queries: Sequence[str], options: SearchOptions, **more: Any
    ) -> SearchOutcome:
        self._note("search", store_id, list(queries), options, **more)
        return self.outcome

    async def pages(self, places: Sequence[tuple[int, int]]) -> list[int | None]:
        self._note("pages", list(places))
        return [self.page_at.get(place) for place in places]

    async def search_together(
        self, _tenant: str, store_ids: Sequence[str], queries: Sequence[str], options: SearchOptions
    ) -> SearchOutcome:
        self._note("search_together", list(store_ids), list(queries), options)
        if self.gate is not None:
            await self.gate.wait()
        return replace(self.outcome, queries=tuple(queries))
