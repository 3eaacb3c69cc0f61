"""Vector stores: made, filled with files, searched, deleted. Who fills them is `rag/ingestion.py`."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Unpack

from server.errors import Conflict, HearthError, InvalidRequest, ObjectNotFound, Reindexed
from server.rag.documents import (
    Attributes,
    BatchRecord,
    ChunkingStrategy,
    DocumentRecord,
    DocumentStatus,
    StoreChanges,
    StoreRecord,
)
from server.rag.paging import FIRST_PAGE, Page
from server.rag.retriever import Retriever
from server.rag.search import SearchOptions, SearchOutcome
from server.rag.uninterrupted import uninterrupted
from server.services.library import LibraryDoor
from server.services.query_rewriting import QueryRewriter
from server.services.store_models import StoreModels
from server.types import ChatMessage

logger = logging.getLogger(__name__)

FileInStore = tuple[str, Attributes, ChunkingStrategy | None]
"""A file's id, its attributes, and how it is cut; None: as the store's files are by default."""


class VectorStoreService:
    """Keeps database, index and jobs together. Everything of other tenants does not exist.

    Every method raises ObjectNotFound for ids that do not exist, StorageUnavailable where the data directory is not
    open, and StorageError or StorageFull where it cannot be used.
    """

    def __init__(self, door: LibraryDoor, models: StoreModels, *, clock: Callable[[], float] = time.time) -> None:
        self._door = door
        self._models = models
        self._clock = clock
        self._rewriter = QueryRewriter()

    # ---- stores

    async def create(
        self,
        tenant: str,
        *,
        name: str = "",
        description: str = "",
        metadata: Mapping[str, str] | None = None,
        expires_after_days: int | None = None,
        chunking: ChunkingStrategy | None = None,
        file_ids: Sequence[str] = (),
    ) -> StoreRecord:
        """Make a store, and begin to put files into it.

        Raises:
            ModelNotFound: This server has no embedding model.
            ModelUnavailable: It is not loaded, and that cannot be waited for.
        """
        documents = self._door.library.documents
        config, facts = await self._models.for_new_store()
        store = await documents.create_store(
            tenant,
            name=name,
            description=description,
            metadata=metadata,
            expires_after_days=expires_after_days,
            embedding_model=config.id,
            fingerprint=facts.fingerprint,
            dimensions=facts.dimensions,
            chunking=chunking or ChunkingStrategy(),
        )
        if not file_ids:
            return store
        try:
            await self._add(tenant, store, [(file_id, {}, None) for file_id in file_ids])
        except HearthError:
            await self.delete(tenant, store.id)  # nobody knows of it
            raise
        return await documents.store(tenant, store.id)

    async def list(self, tenant: str, page: Page = FIRST_PAGE) -> tuple[Sequence[StoreRecord], bool]:
        """List stores; the flag tells whether there are more."""
        return await self._door.library.documents.stores(tenant, page)

    async def get(self, tenant: str, store_id: str) -> StoreRecord:
        return await self._door.library.documents.store(tenant, store_id)

    async def id_of(self, tenant: str, name: str) -> str:
        """Return the id of the store of this name, or of this id.

        Raises:
            Conflict: Several are called so.
        """
        found = await self._door.library.documents.store_ids(tenant, name)
        if not found:
            raise ObjectNotFound(f"no vector store with id or name {name!r}")
        if len(found) > 1:
            raise Conflict(f"vector stores {' and '.join(found)} are all called {name!r}; name one by its id")
        return found[0]

    async def update(self, tenant: str, store_id: str, **changes: Unpack[StoreChanges]) -> StoreRecord:
        return await self._door.library.documents.update_store(tenant, store_id, **changes)

    async def delete(self, tenant: str, store_id: str) -> None:
        """Delete a store with what was made of its files; the files stay."""

        async def work() -> None:
            library = self._door.library
            await library.documents.delete_store(tenant, store_id)
            library.ingestion.cancel(lambda document: document.store_id == store_id)
            library.reindexing.cancel(store_id)
            library.shelf.drop(store_id)
            library.sweeper.wake()

        await uninterrupted(work())

    async def search(
        self,
        tenant: str,
        store_id: str,
        queries: Sequence[str],
        options: SearchOptions,
        *,
        rewrites_queries: bool = False,
    ) -> SearchOutcome:
        """Find what answers the queries, and those that a chat model makes of them if that is wanted.

        Raises:
            Conflict: The store has expired, or its vectors are another model's.
            InvalidRequest: The filter is wrong, or there is no chat model.
            ModelUnavailable: The embedding model cannot answer now.
        """
        if rewrites_queries:
            await self.retriever(tenant, store_id)  # no chat model is asked about a store that cannot be searched
            queries = await self._rewrite(tenant, queries)
        return await self._search(tenant, [store_id], queries, options)

    async def search_together(
        self, tenant: str, store_ids: Sequence[str], queries: Sequence[str], options: SearchOptions
    ) -> SearchOutcome:
        """Search several stores as if they were one. Errors as of `search`, and Conflict where their models differ."""
        stores = [await self.get(tenant, store_id) for store_id in store_ids]
        models = sorted({store.embedding_model for store in stores})
        if len(models) > 1:
            raise Conflict(
                f"the vector stores hold vectors of different models, {' and '.join(models)}, which do not compare; "
                "ask them one by one, or put the files into one store"
            )
        return await self._search(tenant, store_ids, queries, options)

    async def _search(
        self, tenant: str, store_ids: Sequence[str], queries: Sequence[str], options: SearchOptions
    ) -> SearchOutcome:
        """Search with the stores' model, and once more if they got another one just then."""
        for _ in range(2):
            retrievers = [await self.retriever(tenant, store_id) for store_id in store_ids]
            with suppress(Reindexed):
                return await retrievers[0].search(tenant, store_ids, queries, options)
        raise Reindexed("the vector stores get other models' vectors one after the other; try again later")

    async def pages(self, places: Sequence[tuple[int, int]]) -> Sequence[int | None]:
        """Return the pages of places that a search has found; see `DocumentStore.pages`."""
        return await self._door.library.documents.pages(places)

    async def retriever(self, tenant: str, store_id: str, *, rerank_timeout_s: float | None = None) -> Retriever:
        """Return what searches a store, which counts as a use of it. Errors as of `search`.

        Args:
            rerank_timeout_s: Default: as configured.
        """
        library = self._door.library
        store = await library.documents.store(tenant, store_id)
        _check_not_expired(store)
        embedder = await self._models.embedder(store)
        policy = self._models.rerank_policy
        if rerank_timeout_s is not None:
            policy = replace(policy, timeout_s=rerank_timeout_s)
        self._touch(store_id)
        return Retriever(library.documents, library.shelf, embedder, self._models.reranker(), policy)

    async def _rewrite(self, tenant: str, queries: Sequence[str]) -> Sequence[str]:
        """Each query is a conversation of its own; what the chat model makes of it follows it."""
        found = self._models.chat_model()
        if found is None:
            raise InvalidRequest(
                "this server has no chat model to rewrite queries with, see `rag.chat_model` of models.yaml; leave "
                "rewrite_query out",
                param="rewrite_query",
                code="unsupported_parameter",
            )
        _, chat_model = found
        rewritings = [
            self._rewriter.rewrite(
                chat_model,
                [ChatMessage(role="user", content=query)],
                timeout_s=self._models.rewrite_timeout_s,
                tenant=tenant,
            )
            for query in queries
        ]
        return list(dict.fromkeys(query for each in await asyncio.gather(*rewritings) for query in each.queries))

    def _touch(self, store_id: str) -> None:
        self._door.library.documents.touch(store_id, int(self._clock()))

    # ---- files in a store

    async def add_file(
        self,
        tenant: str,
        store_id: str,
        file_id: str,
        *,
        attributes: Attributes | None = None,
        chunking: ChunkingStrategy | None = None,
    ) -> DocumentRecord:
        """Begin to put a file into a store; in place of what was made of it, if it is there already.

        Raises:
            Conflict: As `search`.
            ModelUnavailable: The embedding model is not loaded, and that cannot be waited for.
        """
        store = await self._store_to_fill(tenant, store_id)
        [document] = await self._add(tenant, store, [(file_id, attributes or {}, chunking)])
        return document

    async def document(self, tenant: str, store_id: str, file_id: str) -> DocumentRecord:
        library = self._door.library
        return library.ingestion.with_progress(await library.documents.document(tenant, store_id, file_id))

    async def documents(
        self,
        tenant: str,
        store_id: str,
        *,
        status: DocumentStatus | None = None,
        batch_id: str | None = None,
        page: Page = FIRST_PAGE,
    ) -> tuple[Sequence[DocumentRecord], bool]:
        """List what is in a store, or came with a batch; the flag tells whether there is more."""
        library = self._door.library
        found, has_more = await library.documents.documents(
            tenant, store_id, status=status, batch_id=batch_id, page=page
        )
        return [library.ingestion.with_progress(document) for document in found], has_more

    async def set_attributes(self, tenant: str, store_id: str, file_id: str, attributes: Attributes) -> DocumentRecord:
        """Replace a document's attributes."""
        library = self._door.library
        changed = await library.documents.set_attributes(tenant, store_id, file_id, attributes)
        return library.ingestion.with_progress(changed)

    async def document_text(self, tenant: str, store_id: str, file_id: str) -> str:
        """Return what was read in a file. Raises Conflict while nothing is stored of it."""
        return await self._door.library.documents.document_text(tenant, store_id, file_id)

    async def remove_document(self, tenant: str, store_id: str, file_id: str) -> None:
        """Take a file out of a store, whether it is in already or on its way; the file stays."""

        async def work() -> None:
            library = self._door.library
            document = await library.documents.document(tenant, store_id, file_id)
            library.shelf.apply(await library.documents.remove_document(tenant, store_id, file_id))
            library.ingestion.cancel(lambda each: each.id == document.id)

        await uninterrupted(work())

    # ---- batches of files

    async def create_batch(self, tenant: str, store_id: str, files: Sequence[FileInStore]) -> BatchRecord:
        """Begin to put files into a store together, all or none. Errors as `add_file`."""
        store = await self._store_to_fill(tenant, store_id)
        batch_id = f"vsfb_{secrets.token_hex(12)}"
        await self._add(tenant, store, files, batch_id=batch_id)
        return await self.batch(tenant, store_id, batch_id)

    async def batch(self, tenant: str, store_id: str, batch_id: str) -> BatchRecord:
        return await self._door.library.documents.batch(tenant, store_id, batch_id)

    async def cancel_batch(self, tenant: str, store_id: str, batch_id: str) -> BatchRecord:
        """Stop what is in progress of a batch; what is completed stays."""

        async def work() -> None:
            library = self._door.library
            cancelled = set(await library.documents.cancel_batch(tenant, store_id, batch_id))
            library.ingestion.cancel(lambda document: document.id in cancelled)

        await uninterrupted(work())
        return await self.batch(tenant, store_id, batch_id)

    # ---- inside

    async def _store_to_fill(self, tenant: str, store_id: str) -> StoreRecord:
        store = await self._door.library.documents.store(tenant, store_id)
        _check_not_expired(store)
        await self._models.embedder(store)  # better told now than by each document
        self._touch(store_id)
        return store

    async def _add(
        self, tenant: str, store: StoreRecord, files: Sequence[FileInStore], *, batch_id: str | None = None
    ) -> Sequence[DocumentRecord]:
        async def work() -> Sequence[DocumentRecord]:
            library = self._door.library
            new = [(file_id, attributes, chunking or store.chunking) for file_id, attributes, chunking in files]
            added = await library.documents.add_documents(tenant, store.id, new, batch_id)
            newest = {document.file_id: document.id for document in added}
            library.ingestion.cancel(lambda each: each.store_id == store.id and each.id < newest.get(each.file_id, 0))
            library.ingestion.submit(tenant, added)
            return added

        return await uninterrupted(work())


def _check_not_expired(store: StoreRecord) -> None:
    if store.is_expired:
        raise Conflict(f"vector store {store.id!r} has expired; put the files into a new one")
