from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from server.config.load import load_config
from server.config.schema import ModelConfig
from server.encoders.encoder import Encoder
from server.encoders.loading import load_encoder
from server.models.weights import WeightsStore
from tests.fakes.batching import Harness, MakeHarness
from tests.fakes.encoders import FakeEncoder

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def encoder_weights() -> Callable[[str], tuple[ModelConfig, Path]]:
    """Give the configuration and the folder of a default model; integration tests fail without the weights."""
    config = load_config(REPOSITORY / "models.yaml", environ=os.environ).config

    def find(model_id: str) -> tuple[ModelConfig, Path]:
        model = next(model for model in config.models if model.id == model_id)
        status = WeightsStore(config.server.weights_dir, Path(os.devnull)).check(model)
        assert status.state == "ready" and status.path, f"{status.reason}; run `hearth pull {model_id}`"
        return model, status.path

    return find


@pytest.fixture(scope="session")
def embedder(encoder_weights: Callable[[str], tuple[ModelConfig, Path]]) -> Encoder[Any]:
    return load_encoder(*encoder_weights("all-minilm-l6-v2"), num_threads=2)


@pytest.fixture(scope="session")
def reranker(encoder_weights: Callable[[str], tuple[ModelConfig, Path]]) -> Encoder[Any]:
    return load_encoder(*encoder_weights("ms-marco-minilm-l12-v2"), num_threads=2)


@pytest.fixture
def make_harness() -> Iterator[MakeHarness]:
    harnesses: list[Harness] = []

    def make(*, cache_bytes: int = 0, **encoder_options: object) -> Harness:
        harnesses.append(Harness(FakeEncoder(**encoder_options), cache_bytes=cache_bytes))  # type: ignore[arg-type]
        return harnesses[-1]

    yield make
    for harness in harnesses:
        harness.close()
