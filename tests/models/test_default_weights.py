"""The real weights of models.yaml, fetched through the user's cache as `hearth pull` does."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.cli.settings import cache_dir
from server.config.load import load_config
from server.config.schema import ModelConfig
from server.models.pull import pull
from server.models.weights import WeightsStore

MODELS = load_config(Path(__file__).parents[2] / "models.yaml", environ={}).config.models


@pytest.mark.integration
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.id)
def test_default_weights_arrive_and_are_the_pinned_ones(model: ModelConfig, tmp_path: Path) -> None:
    store = WeightsStore(tmp_path, cache_dir())

    pull(model, store)

    status = store.check(model, deep=True)
    assert (status.state, status.sha256) == ("ready", model.sha256)
