from __future__ import annotations

from pathlib import Path

import pytest
from fake_wheel import gguf_model

from server.config.schema import ModelConfig
from server.models.weights import WeightsStore


@pytest.fixture
def store(tmp_path: Path) -> WeightsStore:
    return WeightsStore(tmp_path / "weights", tmp_path / "cache")


@pytest.fixture
def model() -> ModelConfig:
    """A model whose weights are the folder `fake_weights/model` of the fake wheel."""
    return gguf_model("pypi:fake-weights==1.0#fake_weights/model")
