"""A data directory with everything real in it but parser and model, and ways to break off in the middle."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from server.config.rag_section import RagSettings
from server.config.schema import ModelConfig
from server.models.registry import ModelEntry, ModelRegistry
from server.rag.contexts import ContextWriter
from server.rag.document_store import DocumentStore
from server.rag.documents import Block, BlockKind, ChunkingStrategy, FileRecord, ParsedDocument, StoreRecord
from server.rag.index_shelf import IndexShelf
from server.rag.ingestion import Ingestion
from server.rag.job_tools import JobPolicy, JobTools
from server.rag.parsing import ParseFailed
from server.rag.patience import RetryPolicy
from server.rag.reindex_job import ReindexTools
from server.rag.reindex_store import ReindexStore
from server.rag.reindexing import Reindexing
from server.rag.store_export import StoreExport
from server.rag.store_import import StoreImport
from server.rag.sweeper import Sweeper
from server.rag.transfer_store import TransferStore
from server.services.library import Library
from server.services.store_models import StoreModels
from server.storage.data_layout import DataLayout
from server.storage.database import Database
from server.storage.file_store import FileStore
from server.storage.response_store import ResponseStore
from server.types import ModelFacts
from tests.fakes.models import FakeChatModel, FakeEmbedder, FakeReranker

TENANT = "ada"
FACTS = ModelFacts(context_length=512, dimensions=2, prompts={"passage": "passage: "}, fingerprint="f1")
EMBEDDING = ModelConfig(id="embedder", kind="embedding", backend="sentence_transformers", source="file:x")
RERANK = ModelConfig(id="ranker", kind="rerank", backend="sentence_transformers", source="file:x")
CHAT = ModelConfig(id="talker", kind="chat", backend="llama_cpp", source="file:x.gguf")

SMALL_CHUNKS = ChunkingStrategy(kind="static", max_tokens=10, overlap_tokens=0)
"""Ten characters, since a character is a token of `FakeEmbedder`."""

AT_ONCE = JobPolicy(
    slice_size=2, slices_ahead=1, retry=RetryPolicy(first_wait_s=0, max_wait_s=0, max_crashes=3, max_storage_errors=3)
)


def fake_embedder(**changes: Any) -> FakeEmbedder:
    return FakeEmbedder(facts=FACTS, max_characters=10_000, **changes)


@dataclass
class FakeParser:
    """Reads UTF-8, as one block.

    Attributes:
        gate: When given, answers wait for it.
        begun: Gets each name when its turn comes.
        errors: Raised one after the other in place of answers, while there are some.
        names: Of the files that were asked for.
        kind: Of what a text is.
    """

    gate: asyncio.Event | None = None
    errors: list[ParseFailed] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    begun: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    kind: BlockKind = "paragraph"

    async def parse(self, path: Path, filename: str) -> ParsedDocument:
        self.names.append(filename)
        self.begun.put_nowait(filename)
        if self.gate is not None:
            await self.gate.wait()
        if self.errors:
            raise self.errors.pop(0)
        text = await asyncio.to_thread(path.read_text, encoding="utf-8")
        blocks = (Block(self.kind, 0, len(text)),) if text else ()
        return ParsedDocument(text, blocks, "text/plain")


Around = Callable[[str, Callable[[], Awaitable[Any]]], Awaitable[Any]]
"""Is called in place of a coroutine, with its name and a call that goes through."""


class Interrupted:
    """Stands before an object, and lets its methods be interrupted.

    Args:
        around: Called in place of each method that is a coroutine.
    """

    def __init__(self, inner: Any, around: Around) -> None:
        self._inner = inner
        self._around = around

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not inspect.iscoroutinefunction(found):
            return found
        return lambda *args, **options: self._around(name, lambda: found(*args, **options))


@dataclass
class Rig:
    """What a test holds of an open data directory."""

    library: Library
    models: StoreModels
    tools: JobTools
    embedder: FakeEmbedder
    reranker: FakeReranker
    parser: FakeParser

    @property
    def documents(self) -> DocumentStore:
        return self.library.documents

    async def add_file(self, text: str, *, name: str = "a.txt", expires_at: int | None = None) -> str:
        """Put a file into the data directory; return its id."""
        file_id = f"file-{len(await self.documents.file_ids()) + 1}"

        async def chunks() -> AsyncIterator[bytes]:
            yield text.encode()

        num_bytes, sha256 = await self.library.files.write(file_id, chunks())
        record = FileRecord(
            id=file_id,
            filename=name,
            purpose="assistants",
            num_bytes=num_bytes,
            sha256=sha256,
            created_at=1,
            expires_at=expires_at,
        )
        await self.documents.add_file(TENANT, record)
        return file_id

    async def add_store(self, *, fingerprint: str = "f1") -> StoreRecord:
        return await self.documents.create_store(
            TENANT, embedding_model=EMBEDDING.id, fingerprint=fingerprint, dimensions=2, chunking=SMALL_CHUNKS
        )


@asynccontextmanager
async def open_rig(
    folder: Path,
    *,
    embedder: FakeEmbedder | None = None,
    parser: FakeParser | None = None,
    chat: FakeChatModel | None = None,
    others: Sequence[ModelEntry] = (),
    around: Around | None = None,
    policy: JobPolicy = AT_ONCE,
    max_running: int = 2,
) -> AsyncIterator[Rig]:
    """Open a data directory; nothing runs in it yet.

    Args:
        others: Further models.
        around: See `Interrupted`; of what jobs call.
    """
    layout = DataLayout(folder)
    database = Database.open(layout.database)
    documents = DocumentStore(database)
    embedder, parser, reranker = embedder or fake_embedder(), parser or FakeParser(), FakeReranker()
    entries = [ModelEntry(EMBEDDING, embedder), ModelEntry(RERANK, reranker), *others]
    models = StoreModels(ModelRegistry(entries if chat is None else [*entries, ModelEntry(CHAT, chat)]), RagSettings())
    try:
        tools = _job_tools(documents, layout, models, parser, around, policy)
        library = _library(database, documents, layout, models, tools, max_running)
        try:
            yield Rig(library, models, tools, embedder, reranker, parser)
        finally:
            await library.reindexing.stop()
            await library.ingestion.stop()
    finally:
        await asyncio.to_thread(database.close)


def _job_tools(
    documents: DocumentStore,
    layout: DataLayout,
    models: StoreModels,
    parser: FakeParser,
    around: Around | None,
    policy: JobPolicy,
) -> JobTools:
    parts: dict[str, Any] = {"documents": documents, "parser": parser, "find_embedder": models.embedder}
    if around is not None:
        parts = {
            "documents": Interrupted(documents, around),
            "parser": Interrupted(parser, around),
            "find_embedder": lambda store: around("find_embedder", lambda: models.embedder(store)),
        }
    return JobTools(
        files=FileStore(layout.files, max_bytes=1 << 20),
        shelf=IndexShelf(documents, layout.indexes),
        is_model_ready=models.is_ready,
        contexts=ContextWriter(models.context_model),
        policy=policy,
        **parts,
    )


def _library(
    database: Database,
    documents: DocumentStore,
    layout: DataLayout,
    models: StoreModels,
    tools: JobTools,
    max_running: int,
) -> Library:
    """What is not a job's is never interrupted."""
    ingestion = Ingestion(tools, max_running=max_running)
    reindex_tools = ReindexTools(
        reindexes=ReindexStore(database),
        shelf=tools.shelf,
        find_embedder=models.new_embedder,
        hold=ingestion.held,
        suspects=tools.suspects,
        policy=tools.policy,
    )
    transfers, sweeper = TransferStore(database), Sweeper(database, tools.shelf, pause_s=0)
    return Library(
        documents=documents,
        reindexes=reindex_tools.reindexes,
        files=tools.files,
        uploads=FileStore(layout.imports, max_bytes=1 << 22),
        shelf=tools.shelf,
        ingestion=ingestion,
        reindexing=Reindexing(reindex_tools),
        exports=StoreExport(transfers, tools.files),
        imports=StoreImport(transfers, tools.files, sweeper, max_text_bytes=1 << 20),
        sweeper=sweeper,
        responses=ResponseStore(database),
    )


async def jobs_done(names: tuple[str, ...] = ("ingestion of", "reindex of")) -> None:
    """Wait until no ingestion job and no reindex of this loop runs, nor waits for its turn or its model."""
    async with asyncio.timeout(10):
        while running := [task for task in asyncio.all_tasks() if task.get_name().startswith(names)]:
            await asyncio.wait(running)
