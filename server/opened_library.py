"""What lies in the data directory, opened and joined: files, vector stores, their jobs, and stored responses.

Imports nothing that reads documents: that is the parser's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from server.background import in_background
from server.config.rag_section import ParserSettings
from server.config.schema import HearthConfig
from server.errors import StorageError, StorageFull, StorageUnavailable
from server.rag.contexts import ContextWriter
from server.rag.document_store import DocumentStore
from server.rag.index_keeper import IndexKeeper
from server.rag.index_shelf import IndexShelf
from server.rag.ingestion import Ingestion
from server.rag.job_tools import JobTools
from server.rag.parser import Parser
from server.rag.parsing import ParserLimits
from server.rag.reindex_job import ReindexTools
from server.rag.reindex_store import ReindexStore
from server.rag.reindexing import Reindexing
from server.rag.store_export import StoreExport
from server.rag.store_import import StoreImport
from server.rag.sweeper import Sweeper
from server.rag.transfer_store import TransferStore
from server.services.expiry import expire_for_ever
from server.services.library import Library, LibraryDoor
from server.services.store_models import StoreModels
from server.storage.data_layout import DataLayout
from server.storage.data_lock import data_lock
from server.storage.database import Database
from server.storage.file_store import FileStore
from server.storage.response_store import ResponseStore

logger = logging.getLogger(__name__)

OPENING_S = 5.0
"""A start waits so long for the data directory; what takes longer goes on behind the server's back."""

RETRY_S = 30.0
"""Between two tries to open a data directory whose disk is full."""


@asynccontextmanager
async def library_open(
    door: LibraryDoor, config: HearthConfig, models: StoreModels, *, is_locked: bool = False
) -> AsyncIterator[None]:
    """Open the data directory behind the door, work on what is unfinished there, and close it in the end.

    One that cannot be opened shuts the door and nothing else: the models are served all the same. They do not wait for
    one that takes long to look through, either.
    """
    is_tried = asyncio.Event()
    keeping = asyncio.create_task(_keep_open(door, config, models, is_tried, is_locked=is_locked))
    trying = asyncio.create_task(is_tried.wait())
    try:
        await asyncio.wait((keeping, trying), timeout=OPENING_S, return_when=asyncio.FIRST_COMPLETED)
        if keeping.done():
            keeping.result()  # raises what is a bug
        yield
    finally:
        trying.cancel()
        keeping.cancel()
        await asyncio.wait((keeping,))
        if not keeping.cancelled():
            keeping.result()


async def _keep_open(
    door: LibraryDoor, config: HearthConfig, models: StoreModels, is_tried: asyncio.Event, *, is_locked: bool
) -> None:
    """Open the data directory, again and again while the disk is full, and keep it open until cancelled."""
    while True:
        async with AsyncExitStack() as stack:
            try:
                if not is_locked:
                    stack.enter_context(data_lock(config.server.data_dir))
                library = await _open_library(stack, config, models)
            except StorageError as exc:
                logger.error("files and vector stores are not available", extra={"reason": exc.message})
                door.shut(_for_clients(exc))
                is_tried.set()
                if not isinstance(exc, StorageFull):
                    return
            else:
                door.open(library)
                stack.callback(door.shut, StorageUnavailable("the server is stopping; try again later"))
                is_tried.set()
                await asyncio.Event().wait()
        await asyncio.sleep(RETRY_S)


async def _open_library(stack: AsyncExitStack, config: HearthConfig, models: StoreModels) -> Library:
    """Open everything in the data directory, which is locked; the stack closes it in reverse: jobs first."""
    layout, limits, rag = DataLayout(config.server.data_dir), config.server.limits, config.rag
    opening = asyncio.create_task(asyncio.to_thread(Database.open, layout.database))
    stack.push_async_callback(_close, opening)
    database = await asyncio.shield(opening)
    documents, transfers = DocumentStore(database), TransferStore(database)
    shelf = IndexShelf(documents, layout.indexes)
    stack.push_async_callback(shelf.save_all)
    sweeper = Sweeper(database, shelf)
    await documents.replace_word_tables()
    await sweeper.recover()
    files = FileStore(layout.files, limits.max_upload_mb << 20)
    await files.sweep(await documents.file_ids())
    uploads = FileStore(layout.imports, limits.max_import_mb << 20)
    await uploads.sweep(())
    parser = Parser(_parser_limits(rag.parser), num_workers=rag.parser.workers)
    stack.push_async_callback(parser.close)
    tools = JobTools(
        documents=documents,
        files=files,
        shelf=shelf,
        parser=parser,
        find_embedder=models.embedder,
        is_model_ready=models.is_ready,
        contexts=ContextWriter(models.context_model),
    )
    ingestion = Ingestion(tools)
    reindex_tools = ReindexTools(
        reindexes=ReindexStore(database),
        shelf=shelf,
        find_embedder=models.new_embedder,
        hold=ingestion.held,
        suspects=tools.suspects,
        policy=tools.policy,
    )
    library = Library(
        documents=documents,
        reindexes=reindex_tools.reindexes,
        files=files,
        uploads=uploads,
        shelf=shelf,
        ingestion=ingestion,
        reindexing=Reindexing(reindex_tools),
        exports=StoreExport(transfers, files),
        imports=StoreImport(transfers, files, sweeper, max_text_bytes=rag.parser.max_text_mb << 20),
        sweeper=sweeper,
        responses=ResponseStore(database),
    )
    stack.push_async_callback(library.ingestion.stop)
    stack.push_async_callback(library.reindexing.stop)
    await library.ingestion.start()
    await library.reindexing.start()
    await stack.enter_async_context(in_background(sweeper.sweep_for_ever()))
    keeper = IndexKeeper(shelf, max_bytes=rag.index_memory_mb << 20)
    await stack.enter_async_context(in_background(keeper.keep_for_ever()))
    await stack.enter_async_context(in_background(expire_for_ever(library)))
    return library


async def _close(opening: asyncio.Task[Database]) -> None:
    """Close a database; one that is still being opened when the server stops, as soon as it is open."""
    await asyncio.wait((opening,))
    if opening.exception() is None:
        await asyncio.to_thread(opening.result().close)


def _parser_limits(settings: ParserSettings) -> ParserLimits:
    return ParserLimits(
        timeout_s=settings.timeout_s,
        max_memory_bytes=settings.memory_mb << 20,
        max_text_bytes=settings.max_text_mb << 20,
        max_pages=settings.max_pages,
    )


def _for_clients(exc: StorageError) -> StorageError:
    """What clients read: that the disk is full, else where to look; the error itself may tell paths."""
    if isinstance(exc, StorageFull):
        return exc
    return StorageUnavailable("the data directory cannot be opened; the server's log says why")
