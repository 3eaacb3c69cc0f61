"""The only place that builds and joins objects: configuration in, ASGI application out.

Imports no model runtime: llama.cpp, torch and ONNX live in the workers. Nor what reads documents: that is the parser's.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette

import server
from server.api.application import build_api
from server.config.schema import HearthConfig, ModelConfig, ParserSettings
from server.errors import StorageError, StorageFull, StorageUnavailable, WeightsError
from server.models.cache_folder import tuning_folder
from server.models.registry import ModelEntry, ModelRegistry
from server.models.weights import WeightsStore
from server.rag.document_store import DocumentStore
from server.rag.index_shelf import IndexShelf
from server.rag.ingestion import Ingestion
from server.rag.ingestion_job import JobTools
from server.rag.parser import Parser
from server.rag.parsing import ParserLimits
from server.services import build_services
from server.services.expiry import expire_for_ever
from server.services.library import Library, LibraryDoor
from server.services.store_models import StoreModels
from server.storage.data_layout import DataLayout
from server.storage.data_lock import data_lock
from server.storage.database import Database
from server.storage.file_store import FileStore
from server.telemetry.logs import resolve_format
from server.workers.keeper import SpecFactory
from server.workers.messages import WorkerSpec
from server.workers.supervisor import Supervisor

logger = logging.getLogger(__name__)


def build_app(config: HearthConfig, weights: WeightsStore) -> Starlette:
    """Join everything. Workers start with the application's lifespan and end with it.

    Call it with the event loop running, or from a lifespan: workers' channels belong to the loop.
    """
    supervisor = Supervisor(config.server.limits, bulk_share=config.server.bulk_share)
    registry = ModelRegistry(
        [ModelEntry(model, supervisor.add(model, spec_factory(model, config, weights))) for model in config.models]
    )
    door, store_models = LibraryDoor(), StoreModels(registry, config.rag)
    services = build_services(
        registry,
        config.server.limits,
        started_at_s=int(time.time()),
        version=server.__version__,
        door=door,
        store_models=store_models,
    )

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        for model in config.models:
            if not model.lazy:
                supervisor.load(model.id)
        try:
            async with library_open(door, config, store_models):
                yield
        finally:
            await supervisor.stop()

    app = build_api(services, config.server.limits, lifespan)
    app.state.supervisor = supervisor
    return app


@asynccontextmanager
async def library_open(door: LibraryDoor, config: HearthConfig, models: StoreModels) -> AsyncIterator[None]:
    """Open the data directory behind the door, work on what is unfinished there, and close it in the end.

    One that cannot be opened shuts the door and nothing else: the models are served all the same.
    """
    async with AsyncExitStack() as stack:
        try:
            library = await _open_library(stack, config, models)
        except StorageError as exc:
            logger.error("files and vector stores are not available", extra={"reason": exc.message})
            door.shut(_for_clients(exc))
        else:
            door.open(library)
            stack.callback(door.shut, StorageUnavailable("the server is stopping; try again later"))
        yield


async def _open_library(stack: AsyncExitStack, config: HearthConfig, models: StoreModels) -> Library:
    """Open everything in the data directory; the stack closes it in reverse: jobs first, the lock last."""
    layout, limits, rag = DataLayout(config.server.data_dir), config.server.limits, config.rag
    stack.enter_context(data_lock(layout.folder))
    database = await asyncio.to_thread(Database.open, layout.database)
    stack.push_async_callback(asyncio.to_thread, database.close)
    documents = DocumentStore(database)
    files = FileStore(layout.files, limits.max_upload_mb << 20)
    await files.sweep(await documents.file_ids())
    shelf = IndexShelf(documents, layout.indexes)
    stack.push_async_callback(shelf.save_all)
    parser = Parser(_parser_limits(rag.parser), num_workers=rag.parser.workers)
    stack.push_async_callback(parser.close)
    tools = JobTools(documents=documents, files=files, shelf=shelf, parser=parser, find_embedder=models.embedder)
    library = Library(documents=documents, files=files, shelf=shelf, ingestion=Ingestion(tools))
    stack.push_async_callback(library.ingestion.stop)
    await library.ingestion.start()
    await stack.enter_async_context(_background(expire_for_ever(library)))
    return library


@asynccontextmanager
async def _background(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait((task,))


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


def spec_factory(model: ModelConfig, config: HearthConfig, weights: WeightsStore) -> SpecFactory:
    """What the worker of `model` is to be told, made anew for each start: files may have come meanwhile."""

    def make_spec(endpoint: str) -> WorkerSpec:
        path = _checked_weights(model, weights)
        return WorkerSpec(
            model_json=model.model_dump_json(),
            weights_path=str(path) if path else None,
            endpoint=endpoint,
            num_threads=model.threads or len(os.sched_getaffinity(0)),
            tuning_dir=str(tuning_folder()) if config.server.tune else None,
            log_level=config.server.log_level,
            log_format=resolve_format(config.server.log_format),
        )

    return make_spec


def _checked_weights(model: ModelConfig, weights: WeightsStore) -> Path | None:
    status = weights.check(model)
    if status.state != "ready":
        # Clients read the error; where the files lie is for the log alone.
        logger.warning("weights are not usable", extra={"model": model.id, "path": str(status.path)})
        remedy = "" if (model.source or "").startswith("file:") else f"; run `hearth pull {model.id}`"
        raise WeightsError(f"weights are {status.state}: {status.reason}{remedy}")
    return status.path
