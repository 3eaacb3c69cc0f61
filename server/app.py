"""Builds and joins all objects: configuration in, ASGI application out. Those of the data directory: opened_library.py.

Imports no model runtime: llama.cpp, torch and ONNX live in the workers. Nor what reads documents: that is the parser's.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from starlette.applications import Starlette

import server
from server.access.accounts import Accounts
from server.access.metered_model import MeteredModel
from server.access.policy import policy_of
from server.access.usage_ledger import UsageLedger
from server.api.application import build_api
from server.api.tenant import allowed_models
from server.background import in_background
from server.bindings.gpu import read_gpus, visible_gpus
from server.bindings.gpu_load import gpu_reader
from server.config.rag_section import RagSettings
from server.config.schema import HearthConfig, ModelConfig
from server.config.server_section import ServerSettings
from server.errors import WeightsError
from server.models.cache_folder import footprint_folder, tuning_folder
from server.models.footprints import Footprints
from server.models.memory_needs import MemoryNeeds
from server.models.registry import ModelEntry, ModelRegistry
from server.models.weights import WeightsStore
from server.opened_library import library_open
from server.services import Services, build_services
from server.services.key_spending import make_key_limiter
from server.services.library import LibraryDoor
from server.services.loading import LoadingService
from server.services.reloading import Reloading
from server.services.residency import Residency
from server.services.store_models import StoreModels
from server.storage.data_layout import DataLayout
from server.telemetry.logs import resolve_format
from server.telemetry.loop_lag import watch_loop_lag
from server.telemetry.metrics import Metrics, ServerReading
from server.telemetry.tracing import Tracing, open_tracing
from server.workers.client import WorkerClient
from server.workers.keeper import SpecFactory
from server.workers.memory_estimates import MemoryEstimates
from server.workers.messages import WorkerSpec
from server.workers.supervisor import Supervisor

logger = logging.getLogger(__name__)


def build_app(
    config: HearthConfig,
    weights: WeightsStore,
    *,
    holds_data_dir: bool = False,
    read_config: Callable[[], HearthConfig] | None = None,
) -> Starlette:
    """Join everything. Workers start with the application's lifespan and end with it.

    Call it with the event loop running, or from a lifespan: workers' channels belong to the loop.

    Args:
        holds_data_dir: The caller has locked the data directory; else the lifespan does.
        read_config: Reads the configuration again, on a thread; raises ConfigError. None: it cannot be reloaded.
    """
    settings, layout = config.server, DataLayout(config.server.data_dir)
    metrics, door, tracing = Metrics(), LibraryDoor(), make_tracing(settings)
    residency = make_residency(settings, weights)
    supervisor = Supervisor(settings.limits, bulk_share=settings.bulk_share, make_room=residency.room)
    spec_of, offer = partial(spec_factory, config=config, weights=weights), metering(settings, metrics)
    entries = [ModelEntry(model, offer(model, supervisor.add(model, spec_of(model)))) for model in config.models]
    registry = ModelRegistry(entries, config.rag.models, allowed=allowed_models)
    store_models = StoreModels(registry, config.rag)
    accounts = Accounts(layout.accounts)
    ledger = UsageLedger(lambda: accounts.database, layout.usage)

    def on_rag(rag: RagSettings) -> None:
        store_models.configure(rag)
        services.chat.configure(rag)

    reloading = Reloading(
        config,
        read=read_config or (lambda: config),
        registry=registry,
        supervisor=supervisor,
        residency=residency,
        spec_of=spec_of,
        offer=offer,
        on_rag=on_rag,
    )
    services = build_services(
        registry,
        settings.limits,
        started_at_s=int(time.time()),
        version=server.__version__,
        door=door,
        store_models=store_models,
        rag=config.rag,
        usage=ledger,
        metrics=metrics,
        loading=LoadingService(registry, supervisor.keeper, supervisor.lines),
        reload=reloading.reload if read_config else None,
        ttl_s=residency.ttl_s,
    )
    metrics.read = server_reader(supervisor, services, door)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            if tracing is not None:
                stack.push_async_callback(asyncio.to_thread, tracing.close)
            await stack.enter_async_context(workers_running(supervisor, config.models))
            await stack.enter_async_context(accounts.opened())
            await stack.enter_async_context(ledger.opened(settings.usage_retention_days))
            await stack.enter_async_context(in_background(watch_loop_lag(metrics.loop_lag.observe)))
            await stack.enter_async_context(in_background(residency.keep_for_ever()))
            await stack.enter_async_context(library_open(door, config, store_models, is_locked=holds_data_dir))
            yield

    app = build_api(
        services,
        settings.limits,
        lifespan,
        policy_of(settings, accounts.ring),
        limiter=make_key_limiter(registry, ledger),
        sender_header=settings.sender_header,
        tracing=tracing,
    )
    app.state.supervisor = supervisor
    app.state.reloading = reloading
    return app


def make_tracing(settings: ServerSettings) -> Tracing | None:
    return open_tracing(settings.otlp_endpoint, version=server.__version__) if settings.otlp_endpoint else None


def make_residency(settings: ServerSettings, weights: WeightsStore) -> Residency:
    """What decides which models are in memory, by what they need and what there is."""
    estimate = memory_estimator(settings)
    ask = partial(estimate, asks_llama_cpp=True)
    return Residency(
        MemoryNeeds(weights, Footprints(footprint_folder()), estimate, ask=ask),
        budget_mb=settings.memory_budget_mb,
        default_ttl_s=settings.model_ttl_s,
        free_vram=vram_reader(),
    )


def metering(settings: ServerSettings, metrics: Metrics) -> Callable[[ModelConfig, WorkerClient], MeteredModel]:
    """What makes of a worker's client the model that services ask."""

    def offer(model: ModelConfig, client: WorkerClient) -> MeteredModel:
        return MeteredModel(client, model, metrics.of_model(model.id), traces_prompts=settings.trace_prompts)

    return offer


@asynccontextmanager
async def workers_running(supervisor: Supervisor, models: Sequence[ModelConfig]) -> AsyncIterator[None]:
    """Begin to load the models that are not to be loaded by demand; end all workers when the caller leaves."""
    for model in models:
        if not model.lazy:
            supervisor.load(model.id)
    try:
        yield
    finally:
        await supervisor.stop()


def memory_estimator(settings: ServerSettings) -> MemoryEstimates:
    """What tells from a model's files how much memory it will take on this machine."""
    return MemoryEstimates(
        num_threads=len(os.sched_getaffinity(0)), tuning_dir=tuning_folder() if settings.tune else None
    )


def vram_reader() -> Callable[[], int] | None:
    """What tells how much is free on all GPUs that this server sees together; None where it sees none."""

    def free_bytes() -> int:
        return sum(gpu.free_bytes for gpu in visible_gpus(read_gpus(), os.environ))

    return free_bytes if visible_gpus(read_gpus(), os.environ) else None


def server_reader(supervisor: Supervisor, services: Services, door: LibraryDoor) -> Callable[[], ServerReading]:
    """What tells the metrics of what is not counted but read."""
    read_gpu_load = gpu_reader()

    def read() -> ServerReading:
        ingestion = door.library.ingestion if door.is_open else None
        return ServerReading(
            models=supervisor.readings(),
            gpus=read_gpu_load(),
            num_live_requests=services.requests.num_live,
            num_lost_records=services.usage.num_lost,
            num_documents_waiting=ingestion.num_waiting if ingestion else 0,
            num_documents_running=ingestion.num_running if ingestion else 0,
        )

    return read


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
