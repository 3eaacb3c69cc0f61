"""The only place that builds and joins objects: configuration in, ASGI application out.

Imports no model runtime: llama.cpp, torch and ONNX live in the workers.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette

import server
from server.api.application import build_api
from server.config.schema import HearthConfig, ModelConfig
from server.errors import WeightsError
from server.models.cache_folder import tuning_folder
from server.models.registry import ModelEntry, ModelRegistry
from server.models.weights import WeightsStore
from server.services import build_services
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
    services = build_services(registry, config.server.limits, started_at_s=int(time.time()), version=server.__version__)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        for model in config.models:
            if not model.lazy:
                supervisor.load(model.id)
        try:
            yield
        finally:
            await supervisor.stop()

    app = build_api(services, config.server.limits, lifespan)
    app.state.supervisor = supervisor
    return app


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
