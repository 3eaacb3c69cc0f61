"""Vector stores on their way from one server to another, each as one file."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable

from server.rag.documents import StoreRecord
from server.rag.store_file import Head
from server.services.library import LibraryDoor
from server.services.store_models import StoreModels


class TransferService:
    """Exports and imports stores. Errors as of `VectorStoreService`."""

    def __init__(self, door: LibraryDoor, models: StoreModels) -> None:
        self._door = door
        self._models = models

    async def export_store(self, tenant: str, store_id: str) -> tuple[StoreRecord, AsyncIterator[bytes]]:
        """Return a store, and its file, which is made as it is read: see `StoreExport.begin`.

        Raises:
            Conflict: The store has expired.
        """
        return await self._door.library.exports.begin(tenant, store_id)

    async def import_store(
        self, tenant: str, chunks: AsyncIterator[bytes], name: Callable[[], str | None]
    ) -> StoreRecord:
        """Make a store, with new ids, of a file as it arrives; all of it or nothing. Its model need not be here.

        Args:
            name: Asked for once all chunks have come; None: as it is in the file.

        Raises:
            InvalidRequest: The file is no whole export.
            RequestTooLarge: It is larger than `server.limits.max_import_mb`, or a file in it than `max_upload_mb`.
        """
        library = self._door.library
        upload_id = f"import-{secrets.token_hex(12)}"
        await library.uploads.write(upload_id, chunks)
        try:
            return await library.imports.run(
                tenant, library.uploads.path(upload_id), name=name(), model_of=self._model_of
            )
        finally:
            await library.uploads.delete(upload_id)

    def _model_of(self, head: Head) -> str:
        return self._models.id_of(head.embedding_model, head.fingerprint)
