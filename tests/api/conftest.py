"""An API over fake models: a `Stack` per test, and clients for it."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI
from starlette.applications import Starlette

from server.access.key_limiter import KeyLimiter
from server.access.metered_model import MeteredModel
from server.access.usage_ledger import UsageLedger
from server.api.application import build_api
from server.config.rag_section import RagModel, RagSettings
from server.config.schema import ModelConfig, SamplingDefaults
from server.config.script_section import ScriptRule
from server.config.server_section import Limits
from server.models.registry import ModelEntry, ModelRegistry
from server.services import build_services
from server.services.chat import ChatService
from server.services.grounded_chat import GroundedChat
from server.services.library import LibraryDoor
from server.services.responses import ResponseService
from server.services.store_models import StoreModels
from server.telemetry.metrics import Metrics
from server.types import ModelFacts
from tests.fakes.described import CheckedTransport
from tests.fakes.models import FakeChatModel, FakeEmbedder, FakeReranker, saying
from tests.fakes.responses import open_responses, service_over
from tests.fakes.sources import OUTCOME
from tests.fakes.stores import FakeEvaluationService, FakeFileService, FakeVectorStoreService

CHAT = ModelConfig(
    id="talker",
    kind="chat",
    backend="llama_cpp",
    source="file:x.gguf",
    aliases=("openai/talker",),
    description="Talks.",
    defaults=SamplingDefaults(temperature=0.5, max_tokens=77),
)
SCRIPT = ModelConfig(
    id="actor",
    kind="chat",
    backend="script",
    script=(ScriptRule(text="x"),),
    capabilities=("chat", "completion", "tools"),
)
EMBEDDING = ModelConfig(
    id="embedder", kind="embedding", backend="sentence_transformers", source="file:x", dimensions=(1,)
)
RERANK = ModelConfig(id="ranker", kind="rerank", backend="sentence_transformers", source="file:x")
RAG = RagModel(
    id="handbook",
    chat_model="talker",
    vector_stores=("manuals",),
    aliases=("gpt-4o",),
    description="Answers from the manuals.",
    system_prompt="You are the help desk.",
    max_num_results=5,
)


@dataclass
class Stack:
    """The fakes and the application over them."""

    chat: FakeChatModel = field(default_factory=lambda: FakeChatModel(facts=ModelFacts(context_length=4096)))
    actor: FakeChatModel = field(default_factory=FakeChatModel)
    embedder: FakeEmbedder = field(
        default_factory=lambda: FakeEmbedder(
            facts=ModelFacts(
                context_length=512,
                dimensions=2,
                prompts={"query": "query: ", "passage": "passage: "},
                special_token_ids=([101], [102]),
                details={"pooling": "cls"},
            )
        )
    )
    reranker: FakeReranker = field(default_factory=FakeReranker)
    limits: Limits = field(
        default_factory=lambda: Limits(max_body_mb=1, max_upload_mb=1, max_inputs=8, max_documents=8)
    )
    files: FakeFileService = field(default_factory=FakeFileService)
    stores: FakeVectorStoreService = field(default_factory=FakeVectorStoreService)
    evaluation: FakeEvaluationService = field(default_factory=FakeEvaluationService)
    responses: ResponseService = field(default_factory=lambda: ResponseService(LibraryDoor()))
    rag_models: tuple[RagModel, ...] = ()
    metrics: Metrics = field(default_factory=Metrics)
    usage: UsageLedger | None = None
    limiter: KeyLimiter = field(default_factory=KeyLimiter)

    def app(self, without: tuple[str, ...] = ()) -> Starlette:
        """The application over all models but those whose ids are in `without`."""
        served = ((CHAT, self.chat), (SCRIPT, self.actor), (EMBEDDING, self.embedder), (RERANK, self.reranker))
        entries = [
            ModelEntry(config, self._metered(config, model)) for config, model in served if config.id not in without
        ]
        registry = ModelRegistry(entries, self.rag_models)
        services = build_services(
            registry,
            self.limits,
            started_at_s=1_700_000_000,
            version="1.2.3",
            usage=self.usage,
            metrics=self.metrics,
        )
        stores: Any = self.stores
        grounded = GroundedChat(stores, StoreModels(registry, RagSettings()), RagSettings())
        fakes: dict[str, Any] = {
            "chat": ChatService(registry, grounded),
            "files": self.files,
            "responses": self.responses,
            "vector_stores": stores,
            "evaluation": self.evaluation,
        }
        return build_api(dataclasses.replace(services, **fakes), self.limits, limiter=self.limiter)

    def _metered(self, config: ModelConfig, model: Any) -> MeteredModel:
        return MeteredModel(model, config, self.metrics.of_model(config.id))


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    return Stack(files=FakeFileService(tmp_path))


@pytest.fixture
async def kept_responses(stack: Stack, tmp_path: Path) -> AsyncIterator[None]:
    """Where responses are kept, in a database of the test's own."""
    async with open_responses(tmp_path) as store:
        stack.responses = service_over(store)
        yield


@pytest.fixture
def kneading(stack: Stack) -> None:
    """A search finds a source, and the answer cites it; a RAG model can be asked."""
    stack.stores.outcome = OUTCOME
    stack.chat.steps = saying("Knead ", "for ten minutes [1]. And [7]", " rest.")
    stack.actor.facts = ModelFacts(context_length=4096)
    stack.rag_models = (RAG,)


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    """Its answers are held against /openapi.json."""
    async with httpx.AsyncClient(transport=CheckedTransport(stack.app()), base_url="http://test") as client:
        yield client


@pytest.fixture
async def openai_client(stack: Stack) -> AsyncIterator[AsyncOpenAI]:
    http_client = httpx2.AsyncClient(transport=httpx2.ASGITransport(stack.app()))  # the SDK's own fork of httpx
    async with AsyncOpenAI(
        base_url="http://test/v1", api_key="none", http_client=http_client, max_retries=0
    ) as openai_client:
        yield openai_client


@pytest.fixture
async def anthropic_client(stack: Stack) -> AsyncIterator[AsyncAnthropic]:
    http_client = httpx2.AsyncClient(transport=httpx2.ASGITransport(stack.app()))
    async with AsyncAnthropic(
        base_url="http://test", api_key="none", http_client=http_client, max_retries=0
    ) as anthropic_client:
        yield anthropic_client
