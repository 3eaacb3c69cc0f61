"""Readiness and views of models."""

from __future__ import annotations

import pytest

from server.config.schema import ModelConfig
from server.models.registry import ModelEntry, ModelRegistry
from server.services.models import ModelService
from server.types import ModelFacts, ModelState
from tests.fakes.models import FakeModel


def service(model: FakeModel) -> ModelService:
    config = ModelConfig(id="m", kind="embedding", backend="sentence_transformers", source="file:x", context=256)
    return ModelService(ModelRegistry([ModelEntry(config, model)]), started_at_s=1)


@pytest.mark.parametrize(
    ("state", "on_demand", "is_ready"),
    [
        ("ready", False, True),
        ("loading", False, False),
        ("failed", False, False),
        ("unloaded", False, False),
        ("unloaded", True, True),
        ("loading", True, True),
        ("draining", True, True),
        ("failed", True, False),
    ],
)
def test_readiness_waits_for_all_but_those_that_are_loaded_on_demand(
    state: ModelState, *, on_demand: bool, is_ready: bool
) -> None:
    assert service(FakeModel(state, loads_on_demand=on_demand)).readiness().is_ready is is_ready


@pytest.mark.parametrize(
    ("ttl_s", "idle_s", "expires_in_s"), [(60, 20, 40), (60, 99, 0), (60, None, None), (0, 9, None)]
)
def test_a_model_tells_when_it_goes(ttl_s: float, idle_s: float | None, expires_in_s: float | None) -> None:
    config = ModelConfig(id="m", kind="embedding", backend="sentence_transformers", source="file:x")
    registry = ModelRegistry([ModelEntry(config, FakeModel(idle_s=idle_s))])

    models = ModelService(registry, started_at_s=1, ttl_s=lambda _config: ttl_s)

    assert models.get("m").expires_in_s == expires_in_s


def test_what_the_worker_found_out_goes_before_the_configuration() -> None:
    model = FakeModel()
    models = service(model)
    assert (models.get("m").context_length, models.get("m").dimensions) == (256, None)

    model.facts = ModelFacts(context_length=512, dimensions=384)

    assert (models.get("m").context_length, models.get("m").dimensions) == (512, 384)
