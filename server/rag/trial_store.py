"""A test collection in a vector store of its own, cut, embedded and searched as uploaded documents are.

Only uploading and parsing are left out: passages are texts already. It lives in a temporary folder.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from server.protocols import EmbeddingModel
from server.rag.beir import Passage
from server.rag.chunker import chunk
from server.rag.document_store import DocumentStore
from server.rag.documents import Block, ChunkingStrategy, FileRecord, ParsedDocument
from server.rag.embedded_text import embedded_texts, hash_of
from server.rag.index_shelf import IndexShelf
from server.rag.token_spans import token_spans
from server.storage.data_layout import DataLayout
from server.storage.database import Database
from server.types import DEFAULT_TENANT, ModelFacts

NUM_AT_A_TIME = 16
"""Passages that are worked on side by side, so that the model can fill its batches."""


@dataclass(frozen=True)
class TrialStore:
    """What `Retriever` needs, and the id of the one store. The file name of a document is its passage's id."""

    documents: DocumentStore
    shelf: IndexShelf
    store_id: str


@asynccontextmanager
async def open_trial_store(
    passages: Sequence[Passage],
    embedding: EmbeddingModel,
    facts: ModelFacts,
    chunking: ChunkingStrategy,
    *,
    advance: Callable[[], None] = lambda: None,
) -> AsyncIterator[TrialStore]:
    """Fill a store with passages; those without text are left out.

    Args:
        facts: Of the embedding model.
        advance: Called after each passage.

    Raises:
        ModelUnavailable: The model cannot answer.
    """
    with TemporaryDirectory(prefix="hearth-trial-") as folder:
        layout = DataLayout(Path(folder))
        database = await asyncio.to_thread(Database.open, layout.database)
        try:
            documents = DocumentStore(database)
            store = await documents.create_store(
                DEFAULT_TENANT,
                embedding_model="",
                fingerprint=facts.fingerprint,
                dimensions=facts.dimensions,
                chunking=chunking,
            )
            filling = _Filling(documents, store.id, embedding, facts.prompt_for("document"), chunking)
            await filling.add_all(passages, advance)
            yield TrialStore(documents, IndexShelf(documents, layout.indexes), store.id)
        finally:
            await asyncio.to_thread(database.close)


@dataclass(frozen=True)
class _Filling:
    documents: DocumentStore
    store_id: str
    embedding: EmbeddingModel
    prompt: str
    chunking: ChunkingStrategy

    async def add_all(self, passages: Sequence[Passage], advance: Callable[[], None]) -> None:
        waiting = iter(enumerate(passages))

        async def add_some() -> None:
            for number, passage in waiting:
                await self._add(f"file-{number}", passage)
                advance()

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(NUM_AT_A_TIME):
                    group.create_task(add_some())
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _add(self, file_id: str, passage: Passage) -> None:
        parsed = parsed_passage(passage)
        chunked = chunk(parsed, self.chunking, await token_spans(parsed.text, self.embedding))
        if not chunked.chunks:
            return
        texts = embedded_texts(parsed.text, chunked)
        result = await self.embedding.embed(texts, truncate="mean", prompt=self.prompt, lane="bulk")
        content = parsed.text.encode()
        digest = hashlib.sha256(content)
        file = FileRecord(
            id=file_id,
            filename=passage.id,
            purpose="evals",
            num_bytes=len(content),
            sha256=digest.hexdigest(),
            created_at=0,
        )
        await self.documents.add_file(DEFAULT_TENANT, file)
        [document] = await self.documents.add_documents(DEFAULT_TENANT, self.store_id, [(file_id, {}, self.chunking)])
        hashes = [hash_of(text) for text in texts]
        await self.documents.complete(document.id, parsed, chunked, result.vectors, hashes)


def parsed_passage(passage: Passage) -> ParsedDocument:
    """The title is a heading, as parsers see it. Collections that repeat it in the text have it there already."""
    title, text = passage.title.strip(), passage.text.strip()
    if not text.startswith(title):
        text = f"{title}\n\n{text}".strip()
    blocks = (Block("heading", 0, len(title), level=1), Block("paragraph", len(title), len(text)))
    return ParsedDocument(text, tuple(block for block in blocks if block.start < block.end), "text/plain", title)
