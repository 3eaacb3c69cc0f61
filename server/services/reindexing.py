"""Reindexing of vector stores: asked for, looked at, cancelled. Who does it is `rag/reindexing.py`."""

from __future__ import annotations

from server.rag.documents import ReindexRecord
from server.rag.rows.editions import NewModel
from server.rag.uninterrupted import uninterrupted
from server.services.library import LibraryDoor
from server.services.store_models import StoreModels


class ReindexService:
    """Embeds stores anew. Errors as of `VectorStoreService`."""

    def __init__(self, door: LibraryDoor, models: StoreModels) -> None:
        self._door = door
        self._models = models

    async def begin(self, tenant: str, store_id: str, *, embedding_model: str | None = None) -> ReindexRecord:
        """Begin to embed all chunks of a store with a model, which searches get once all are; default: that of new
        stores. A store that has its vectors already is left as it is, and the reindex is completed at once.

        Raises:
            ModelNotFound: This server has no such model.
            InvalidRequest: It is none of kind embedding.
            ModelUnavailable: It is not loaded, and that cannot be waited for.
            Conflict: The store has expired, or is being embedded with another model.
        """
        library = self._door.library
        await library.documents.store(tenant, store_id)  # whose tenant may not have models loaded for nothing
        config, facts = await self._models.for_reindex(embedding_model)
        model = NewModel(embedding_model=config.id, fingerprint=facts.fingerprint, dimensions=facts.dimensions)

        async def work() -> ReindexRecord:
            reindex = await library.reindexes.begin(tenant, store_id, model)
            if reindex.status == "in_progress":
                library.reindexing.submit(reindex)
            return reindex

        return library.reindexing.with_progress(await uninterrupted(work()))

    async def get(self, tenant: str, store_id: str) -> ReindexRecord:
        """Return the newest reindex of a store. Raises ObjectNotFound where there has been none."""
        library = self._door.library
        return library.reindexing.with_progress(await library.reindexes.find(tenant, store_id))

    async def cancel(self, tenant: str, store_id: str) -> ReindexRecord:
        """Stop a reindex, if it is in progress; the store stays as it is. Raises ObjectNotFound as `get`."""

        async def work() -> ReindexRecord:
            library = self._door.library
            cancelled = await library.reindexes.cancel(tenant, store_id)
            library.reindexing.cancel(store_id)
            library.sweeper.wake()
            return cancelled

        return await uninterrupted(work())
