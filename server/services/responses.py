"""Responses that are kept: to be read again, deleted, and gone on from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from server.errors import StorageError
from server.rag.uninterrupted import uninterrupted
from server.services.library import LibraryDoor
from server.storage.response_store import ResponseStore, StoredResponse


class ResponseService:
    """Keeps responses and the conversations that they make. Everything of other tenants does not exist.

    Bodies are JSON that only the API reads. Every method raises StorageUnavailable where the data directory is not
    open, and StorageError or StorageFull where it cannot be used.
    """

    def __init__(self, door: LibraryDoor) -> None:
        self._door = door

    def check_open(self) -> None:
        """Raise StorageError where nothing can be kept: an answer that would be lost need not be computed."""
        try:
            self._door.library  # noqa: B018  # it raises
        except StorageError as exc:
            raise type(exc)(f'{exc.message}; with "store": false nothing is kept', param="store") from exc

    async def keep(self, tenant: str, response: StoredResponse) -> None:
        """Keep a response; on return it survives a power cut."""
        await uninterrupted(self._store.add(tenant, response))

    async def get(self, tenant: str, response_id: str) -> tuple[str, list[str]]:
        """Return the body of a response, and those of its output. Raises ObjectNotFound."""
        return await self._store.get(tenant, response_id)

    async def conversation(self, tenant: str, response_id: str) -> list[str]:
        """Return the bodies of all items up to the end of a response. Raises ObjectNotFound, InvalidRequest."""
        return await self._store.conversation(tenant, response_id)

    async def items(self, tenant: str, item_ids: Sequence[str]) -> dict[str, str]:
        """Return the bodies of items by id, as far as they are kept."""
        return await self._store.items(tenant, item_ids)

    async def inputs(
        self, tenant: str, response_id: str, *, limit: int, order: Literal["asc", "desc"], after: str | None
    ) -> tuple[list[str], bool]:
        """Return a page of what was sent for a response. Raises ObjectNotFound, InvalidRequest."""
        return await self._store.inputs(tenant, response_id, limit=limit, order=order, after=after)

    async def delete(self, tenant: str, response_id: str) -> None:
        """Delete a response with what was sent for it. Raises ObjectNotFound."""
        await uninterrupted(self._store.delete(tenant, response_id))

    @property
    def _store(self) -> ResponseStore:
        return self._door.library.responses
