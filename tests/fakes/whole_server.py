"""A whole server in a thread: real HTTP, services and data directory over fake models."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from server.api.application import build_api
from server.api.openapi.encoder_operations import EMBEDDING_MODEL
from server.api.openapi.generation_operations import CHAT_MODEL
from server.config.rag_section import RagSettings
from server.config.schema import ModelConfig
from server.config.server_section import Limits
from server.models.registry import ModelEntry, ModelRegistry
from server.services import build_services
from server.services.library import LibraryDoor
from server.services.store_models import StoreModels
from server.types import ModelFacts
from tests.fakes.library import EMBEDDING, RERANK, fake_embedder, open_rig
from tests.fakes.models import FakeChatModel, FakeReranker

CHAT = ModelConfig(id=CHAT_MODEL, kind="chat", backend="llama_cpp", source="file:x.gguf")


@contextmanager
def whole_server(folder: Path) -> Iterator[str]:
    """Serve until the caller is done; yields the address. `folder` is the data directory."""
    is_ready = threading.Event()
    failures: list[BaseException] = []

    # By its protocol asyncio knows that it may switch off Nagle's algorithm, which costs 40 ms at every request.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(_build(folder, is_ready), log_config=None, loop="asyncio", ws="none"))

    def run() -> None:
        try:
            asyncio.run(server.serve(sockets=[listener]))
        except BaseException as exc:  # of a thread, nobody else would hear
            failures.append(exc)
        finally:
            is_ready.set()

    thread = threading.Thread(target=run, name="whole server")
    thread.start()
    try:
        assert is_ready.wait(30)
        assert not failures, failures
        yield "http://{}:{}".format(*listener.getsockname())
    finally:
        server.should_exit = True
        thread.join(30)
    assert not failures


def _build(folder: Path, is_ready: threading.Event) -> Starlette:
    facts = ModelFacts(context_length=4096)
    embedding = EMBEDDING.model_copy(update={"aliases": (EMBEDDING_MODEL,)})
    entries = [
        ModelEntry(CHAT, FakeChatModel(facts=facts)),
        ModelEntry(embedding, fake_embedder()),
        ModelEntry(RERANK, FakeReranker()),
    ]
    registry, door, rag = ModelRegistry(entries), LibraryDoor(), RagSettings()
    models, limits = StoreModels(registry, rag), Limits(max_body_mb=1, max_upload_mb=1)
    services = build_services(registry, limits, started_at_s=1, version="1.2.3", door=door, store_models=models)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with open_rig(folder) as rig:
            await rig.library.ingestion.start()
            await rig.library.reindexing.start()
            door.open(rig.library)
            is_ready.set()
            yield

    return build_api(services, limits, lifespan)
