"""Readiness and views of models."""

from __future__ import annotations

import pytest

from server.config.schema import ModelConfig
from server.models.registry import ModelEntry, ModelRegistry
from server.services.models import ModelService
from server.types import ModelFacts, ModelState
from tests.fakes.models import FakeModel


def service(model: FakeModel, *, lazy: bool = False) -> ModelService:
    config = ModelConfig(
        id="m", kind="embedding", backend="sentence_transformers", source="file:x", context=256, lazy=lazy
    )
    return ModelService(ModelRegistry([ModelEntry(config, model)]), started_at_s=1)


@pytest.mark.parametrize(
    ("state", "lazy", "is_ready"),
    [
        ("ready", False, True),
        ("loading", False, False),
        ("failed", False, False),
        ("unloaded", False, False),
        ("unloaded", True, True),
        ("failed", True, False),
    ],
)
def test_readiness_waits_for_all_but_untouched_lazy_models(state: ModelState, *, lazy: bool, is_ready: bool) -> None:
    assert service(FakeModel(state), lazy=lazy).readiness().is_ready is is_ready


def test_what_the_worker_found_out_goes_before_the_configuration() -> None:
    model = FakeModel()
    models = service(model)
    assert (models.get("m").context_length, models.get("m").dimensions) == (256, None)

    model.facts = ModelFacts(context_length=512, dimensions=384)

    assert (models.get("m").context_length, models.get("m").dimensions) == (512, 384)
