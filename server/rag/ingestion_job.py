"""One document's way into a vector store: parse, cut, embed, commit."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial

from server.errors import HearthError, ObjectNotFound, Reindexed, StorageError
from server.rag.chunk_embedding import ChunkEmbedding
from server.rag.chunker import chunk
from server.rag.contexts import ContextFailed, DocumentContexts
from server.rag.documents import (
    ChunkDraft,
    ChunkedDocument,
    DocumentRecord,
    FailureCode,
    ParsedDocument,
    StoreRecord,
    Vectors,
)
from server.rag.job_tools import JobTools
from server.rag.parsing import ParseFailed
from server.rag.patience import Patience
from server.rag.token_spans import TokenSpans, token_spans
from server.rag.uninterrupted import uninterrupted

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 3
"""So many processes may die one after the other while they work on a document: see docs/decisions/0016-ingestion.md."""


class IngestionJob:
    """Brings a document that is in progress to its end, whatever that is.

    Cancelled, it leaves the document in progress, and what is embedded of it safe: another job goes on from there.

    Args:
        on_change: Called when `is_suspect` or `waits_for_model` has become something else.

    Attributes:
        is_suspect: Processes have died while they worked on the document, perhaps of it, and it has not got on since.
    """

    def __init__(
        self, tenant: str, document: DocumentRecord, tools: JobTools, *, on_change: Callable[[], None] = lambda: None
    ) -> None:
        self.tenant = tenant
        self.document = document
        self.is_suspect = document.num_attempts > 0
        self._on_change = on_change
        self._tools = tools
        self._name: dict[str, object] = {"store": document.store_id, "file": document.file_id}
        self._patience = Patience(tools.policy.retry, tools.suspects, name=self._name, on_wait=on_change)
        self._is_begun = False
        self._writing: str | None = None  # what is waited for while contexts are written
        self._embedding = ChunkEmbedding(document.id, tools, self._patience, on_kept=self._note_progress)

    @property
    def wants_contexts(self) -> bool:
        return self.document.chunking.context

    @property
    def waits_for_model(self) -> bool:
        """Whether it does nothing until its embedding model answers."""
        return self._patience.waits_for_model

    @property
    def waiting_for(self) -> str | None:
        """Why it does not get on; None if it does."""
        return self._patience.waiting_for or self._writing

    def with_progress(self, document: DocumentRecord) -> DocumentRecord:
        """Return the job's document as it was read from the database, with how far the job is."""
        return replace(
            document,
            num_chunks=self._embedding.num_chunks,
            num_chunks_done=self._embedding.num_chunks_done,
            eta_s=self._embedding.eta_s(),
            waiting_for=self.waiting_for,
        )

    async def run(self) -> bool:
        """Return false, with nothing done, if the model is not ready: `wait_for_model`, and run it again."""
        try:
            return await self._run()
        except asyncio.CancelledError:  # also while a failure is noted
            await self._take_back()
            raise

    async def _run(self) -> bool:
        try:
            store = await self._find_store()
            if not self._tools.is_model_ready(store):
                return False
            await self._begin()
            await self._ingest(store)
        except ObjectNotFound:
            logger.debug("document is gone", extra=self._name)  # deleted, with its store or file perhaps
        except ParseFailed as exc:
            await self._fail(exc.code, exc.message)
        except HearthError as exc:
            await self._fail("server_error", exc.message)
        except Exception:
            logger.exception("ingestion failed", extra=self._name)
            await self._fail("server_error", "internal error; the server's log has the details")
        return True

    async def wait_for_model(self) -> None:
        """Return when the model is ready, or when the job will find out by itself why that does not happen."""

        async def work() -> None:
            await self._tools.ready_embedder(await self._find_store(), self._patience)

        with suppress(HearthError):
            await self._patience.call(work)

    async def _find_store(self) -> StoreRecord:
        return await self._patience.call(lambda: self._tools.documents.store(self.tenant, self.document.store_id))

    async def _begin(self) -> None:
        """Have it written down that this process works on the document, in case it dies of it."""
        self._is_begun = True
        num_attempts = await self._patience.call(lambda: self._tools.documents.begin(self.document.id))
        if num_attempts is None:
            raise ObjectNotFound("the job is over")
        if num_attempts > MAX_ATTEMPTS:
            raise ParseFailed(
                "server_error",
                f"the server ended {MAX_ATTEMPTS} times while it worked on this file, all but the first time on this "
                "one alone; find out why (it may be out of memory), then add the file again",
            )

    async def _take_back(self) -> None:
        """It is the process that stops, and not because of the document."""
        if self._is_begun:
            with suppress(StorageError):
                await uninterrupted(self._tools.documents.take_back(self.document.id))

    def _note_progress(self) -> None:
        if self.is_suspect:
            self.is_suspect = False
            self._on_change()

    async def _ingest(self, store: StoreRecord) -> None:
        parsed = await self._parse()
        while True:
            try:
                return await self._store(store, parsed)
            except Reindexed:
                logger.info("document begins anew with another model", extra=self._name)
            store = await self._find_store()

    async def _store(self, store: StoreRecord, parsed: ParsedDocument) -> None:
        """Cut, embed and commit with the model of the store as it was read.

        Raises:
            Reindexed: It is another one now.
        """
        chunked = await self._with_contexts(store, parsed, await self._cut(store, parsed))
        vectors, hashes = await self._embedding.run(store, parsed, chunked)
        # An index that is not told of a commit must be made again.
        await self._patience.call(lambda: uninterrupted(self._commit(store, parsed, chunked, vectors, hashes)))

    async def _fail(self, code: FailureCode, message: str) -> None:
        try:
            failed = await self._patience.call(lambda: self._tools.documents.fail(self.document.id, code, message))
        except StorageError:
            logger.exception("a failure cannot be noted; the next start tries the document again", extra=self._name)
            return
        if failed:
            logger.warning("document failed", extra={**self._name, "code": code, "reason": message})

    # ---- parse

    async def _parse(self) -> ParsedDocument:
        """What is not the file's fault, a process killed for memory perhaps, gets another try."""
        path = self._tools.files.path(self.document.file_id)
        for wait_s in (self._tools.policy.retry.first_wait_s, self._tools.policy.retry.max_wait_s):
            try:
                return await self._tools.parser.parse(path, self.document.filename)
            except ParseFailed as exc:
                if exc.code != "server_error":
                    raise
            await asyncio.sleep(wait_s)
        return await self._tools.parser.parse(path, self.document.filename)

    # ---- cut

    async def _cut(self, store: StoreRecord, parsed: ParsedDocument) -> ChunkedDocument:
        async def tokens() -> TokenSpans:
            return await token_spans(parsed.text, await self._tools.ready_embedder(store, self._patience))

        spans = await self._patience.call(tokens)
        async with self._tools.cutting:
            chunked = await asyncio.to_thread(chunk, parsed, self.document.chunking, spans)
        if not chunked.chunks:
            raise ParseFailed("invalid_file", "the file has no text")
        if (num_chunks := len(chunked.chunks)) > (most := self._tools.policy.max_chunks):
            message = f"the file makes {num_chunks} chunks, more than {most}; split it, or let chunks be larger"
            raise ParseFailed("invalid_file", message)
        return chunked

    # ---- contexts

    async def _with_contexts(
        self, store: StoreRecord, parsed: ParsedDocument, chunked: ChunkedDocument
    ) -> ChunkedDocument:
        """Have contexts written if the document shall have them. What cannot be written now is done without."""
        if not self.wants_contexts:
            return chunked
        try:
            contexts = await asyncio.to_thread(self._tools.contexts.open, self.tenant, parsed)
        except ContextFailed as exc:
            self._go_without_contexts(exc)
            return chunked
        keys = await asyncio.to_thread(lambda: [contexts.key(each.span) for each in chunked.chunks])
        known = await self._patience.call(lambda: self._tools.documents.known_contexts(store.id, keys))
        try:
            await self._write_contexts(contexts, dict(zip(keys, chunked.chunks, strict=True)), known)
        except ContextFailed as exc:
            self._go_without_contexts(exc)
        chunks = (
            replace(draft, context=known[key], context_key=key) if key in known else draft
            for key, draft in zip(keys, chunked.chunks, strict=True)
        )
        return replace(chunked, chunks=tuple(chunks))

    def _go_without_contexts(self, exc: ContextFailed) -> None:
        logger.warning("chunks without context", extra={**self._name, "reason": str(exc)})

    async def _write_contexts(
        self, contexts: DocumentContexts, drafts: dict[bytes, ChunkDraft], known: dict[bytes, str]
    ) -> None:
        """Add to `known` what is missing of `drafts`; each is safe from a crash at once, for it has taken a while."""
        missing = iter([(key, draft) for key, draft in drafts.items() if key not in known])

        async def write_some() -> None:
            for key, draft in missing:
                self._writing = f"the chat model writes contexts: {len(known)} of {len(drafts)}"
                context = {key: await contexts.write(draft.span)}
                if not await self._patience.call(
                    partial(self._tools.documents.keep_contexts, self.document.id, context)
                ):
                    raise ObjectNotFound("the job is over")
                self._note_progress()
                known.update(context)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._tools.policy.contexts_ahead):
                    group.create_task(write_some())
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            self._writing = None

    # ---- commit

    async def _commit(
        self,
        store: StoreRecord,
        parsed: ParsedDocument,
        chunked: ChunkedDocument,
        vectors: Vectors,
        hashes: list[bytes],
    ) -> None:
        change = await self._tools.documents.complete(
            self.document.id, parsed, chunked, vectors, hashes, edition=store.edition
        )
        if change is not None:
            self._tools.shelf.apply(change)
            logger.info("document completed", extra={**self._name, "chunks": len(hashes)})
