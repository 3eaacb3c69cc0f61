"""A server that has keys, in this process: real services and data directory over fake models."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal

import httpx
from starlette.applications import Starlette
from starlette.types import Message

from server.access.api_key import ApiKey
from server.access.key_ring import KeyRing
from server.access.policy import AccessPolicy
from server.api.application import build_api
from server.api.openapi.encoder_operations import EMBEDDING_MODEL
from server.api.openapi.generation_operations import CHAT_MODEL
from server.api.tenant import allowed_models
from server.config.rag_section import RagModel, RagSettings
from server.config.schema import ModelConfig
from server.config.server_section import Limits
from server.models.registry import ModelEntry, ModelRegistry
from server.services import build_services
from server.services.library import LibraryDoor
from server.services.store_models import StoreModels
from server.types import ModelFacts
from tests.fakes.library import EMBEDDING, RERANK, Rig, fake_embedder, open_rig
from tests.fakes.models import FakeChatModel, FakeReranker

CHAT = ModelConfig(id=CHAT_MODEL, kind="chat", backend="llama_cpp", source="file:x.gguf")
HANDBOOK = RagModel(id="handbook", chat_model=CHAT_MODEL, vector_stores=("manuals",))

Form = Literal["bearer", "x-api-key"]


def credentials(key: str | None, form: Form = "bearer") -> dict[str, str]:
    """The headers that a client sends its key in."""
    if key is None:
        return {}
    return {"authorization": f"Bearer {key}"} if form == "bearer" else {"x-api-key": key}


@dataclass
class KeyedServer:
    """What a test holds of it."""

    app: Starlette
    chat: FakeChatModel
    rig: Rig

    def __post_init__(self) -> None:
        self._addresses = (
            f"192.0.2.{number % 250}.{number}" for number in count()
        )  # too many tries of one are refused

    async def ask(
        self, method: str, path: str, key: str | None = None, *, form: Form = "bearer", **request: Any
    ) -> httpx.Response:
        """Send one request, each from another address."""
        transport = httpx.ASGITransport(self.app, client=(next(self._addresses), 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            headers = {**credentials(key, form), **request.pop("headers", {})}
            return await client.request(method, path, headers=headers, **request)


@asynccontextmanager
async def keyed_server(folder: Path, *keys: ApiKey, **policy: Any) -> AsyncIterator[KeyedServer]:
    """A server with these keys; `policy` has the rest of `AccessPolicy`."""
    facts = ModelFacts(context_length=4096)
    chat = FakeChatModel(facts=facts)
    embedding = EMBEDDING.model_copy(update={"aliases": (EMBEDDING_MODEL,)})
    entries = [
        ModelEntry(CHAT, chat),
        ModelEntry(embedding, fake_embedder()),
        ModelEntry(RERANK, FakeReranker(facts=facts)),
    ]
    registry = ModelRegistry(entries, [HANDBOOK], allowed=allowed_models)
    limits, door, rag = Limits(max_body_mb=1, max_upload_mb=1), LibraryDoor(), RagSettings()
    services = build_services(
        registry, limits, started_at_s=1, version="1.2.3", door=door, store_models=StoreModels(registry, rag)
    )
    app = build_api(services, limits, policy=AccessPolicy(ring=KeyRing.of(*keys), **policy))
    async with open_rig(folder) as rig:
        await rig.library.ingestion.start()
        await rig.library.reindexing.start()
        door.open(rig.library)
        yield KeyedServer(app, chat, rig)


async def raw_status(app: Starlette, method: str, path: str, headers: Mapping[str, str] | None = None) -> int:
    """The status of a request whose path no client has made tidy."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in (headers or {"host": "localhost"}).items()],
        "client": ("192.0.2.1", 50000),
        "server": ("127.0.0.1", 8000),
    }
    await app(scope, receive, send)
    return int(sent[0]["status"])
