"""Use cases: one class each, and all of them together as `Services`. They know neither HTTP nor JSON."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from server.access.request_register import RequestRegister
from server.access.usage_ledger import UsageLedger
from server.config.rag_section import RagSettings
from server.config.schema import ModelConfig
from server.config.server_section import Limits
from server.errors import InvalidRequest, StorageUnavailable
from server.models.registry import ModelRegistry
from server.services.chat import ChatService
from server.services.completions import CompletionService
from server.services.embeddings import EmbeddingService
from server.services.evaluation import EvaluationService
from server.services.files import FileService
from server.services.grounded_chat import GroundedChat
from server.services.library import LibraryDoor
from server.services.loading import LoadingService
from server.services.models import ModelService
from server.services.reindexing import ReindexService
from server.services.reloading import ReloadReport
from server.services.rerank import RerankService
from server.services.responses import ResponseService
from server.services.store_models import StoreModels
from server.services.tokens import TokenService
from server.services.transfers import TransferService
from server.services.vector_stores import VectorStoreService
from server.storage.database import Database
from server.telemetry.metrics import Metrics
from server.workers.keeper import Keeper
from server.workers.recent_lines import RecentLines


@dataclass(frozen=True, kw_only=True)
class Services:
    """All that the API can ask for. `version` is Hearth's own."""

    chat: ChatService
    responses: ResponseService
    completions: CompletionService
    embeddings: EmbeddingService
    rerank: RerankService
    tokens: TokenService
    models: ModelService
    files: FileService
    vector_stores: VectorStoreService
    reindexing: ReindexService
    transfers: TransferService
    evaluation: EvaluationService
    usage: UsageLedger
    requests: RequestRegister
    metrics: Metrics
    loading: LoadingService
    reload: Callable[[], Awaitable[ReloadReport]]
    version: str


def build_services(
    registry: ModelRegistry,
    limits: Limits,
    *,
    started_at_s: int,
    version: str,
    door: LibraryDoor | None = None,
    store_models: StoreModels | None = None,
    rag: RagSettings | None = None,
    usage: UsageLedger | None = None,
    metrics: Metrics | None = None,
    loading: LoadingService | None = None,
    reload: Callable[[], Awaitable[ReloadReport]] | None = None,
    ttl_s: Callable[[ModelConfig], float] | None = None,
) -> Services:
    """One of each over the same models.

    Args:
        started_at_s: Unix time.
        door: To the data directory; without one, files, vector stores and stored responses are not available.
        store_models: Which of the models vector stores use; default: the first ones.
        rag: As configured.
        usage: Where it is kept who used what; by default it is not kept.
        metrics: Those that the models count in.
        loading: Over the keepers of the models; without it, none can be loaded or unloaded.
        reload: Reads models.yaml again; default: there is none.
        ttl_s: After how long without a request a model is unloaded.
    """
    usage, metrics = usage or UsageLedger(no_accounts, None), metrics or Metrics()
    door, rag = door or LibraryDoor(), rag or RagSettings()
    store_models = store_models or StoreModels(registry, rag)
    vector_stores = VectorStoreService(door, store_models)
    return Services(
        chat=ChatService(registry, GroundedChat(vector_stores, store_models, rag)),
        responses=ResponseService(door),
        completions=CompletionService(registry),
        embeddings=EmbeddingService(registry, limits),
        rerank=RerankService(registry, limits),
        tokens=TokenService(registry),
        models=ModelService(registry, started_at_s=started_at_s, ttl_s=ttl_s or (lambda _config: 0)),
        files=FileService(door),
        vector_stores=vector_stores,
        reindexing=ReindexService(door, store_models),
        transfers=TransferService(door, store_models),
        evaluation=EvaluationService(door, vector_stores),
        usage=usage,
        requests=RequestRegister(usage, metrics),
        metrics=metrics,
        loading=loading or LoadingService(registry, _no_keeper, RecentLines()),
        reload=reload or _nothing_to_reload,
        version=version,
    )


def no_accounts() -> Database:
    """Raises StorageUnavailable: there is no data directory."""
    raise StorageUnavailable("this server keeps neither keys nor usage")


def _no_keeper(model_id: str) -> Keeper:
    message = f"model {model_id!r} is not run by this server, which can neither load nor unload it"
    raise InvalidRequest(message, param="model", code="unsupported_value")


async def _nothing_to_reload() -> ReloadReport:
    raise InvalidRequest("this server was not started from a models.yaml", code="invalid_config")
