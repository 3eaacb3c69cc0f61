"""The open data directory, as services reach it: there, or shut for a reason."""

from __future__ import annotations

from dataclasses import dataclass

from server.errors import StorageError, StorageUnavailable
from server.rag.document_store import DocumentStore
from server.rag.index_shelf import IndexShelf
from server.rag.ingestion import Ingestion
from server.rag.reindex_store import ReindexStore
from server.rag.reindexing import Reindexing
from server.rag.store_export import StoreExport
from server.rag.store_import import StoreImport
from server.rag.sweeper import Sweeper
from server.storage.file_store import FileStore
from server.storage.response_store import ResponseStore


@dataclass(frozen=True, kw_only=True)
class Library:
    """What is kept of files, vector stores and responses, and what works on it.

    Attributes:
        uploads: Exported stores that are being imported, each for as long as that takes.
    """

    documents: DocumentStore
    reindexes: ReindexStore
    files: FileStore
    uploads: FileStore
    shelf: IndexShelf
    ingestion: Ingestion
    reindexing: Reindexing
    exports: StoreExport
    imports: StoreImport
    sweeper: Sweeper
    responses: ResponseStore


class LibraryDoor:
    """Shut until the data directory is open, and for good where it cannot be opened: models are served all the same."""

    def __init__(self) -> None:
        self._library: Library | None = None
        self._reason: StorageError = StorageUnavailable("the data directory is not open yet; try again in a moment")

    @property
    def is_open(self) -> bool:
        return self._library is not None

    @property
    def library(self) -> Library:
        """Raises StorageUnavailable, or whatever else it was shut with."""
        if self._library is None:
            raise self._reason
        return self._library

    def open(self, library: Library) -> None:
        self._library = library

    def shut(self, reason: StorageError) -> None:
        """`reason` is for clients."""
        self._library, self._reason = None, reason
