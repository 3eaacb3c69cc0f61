from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from server.bindings.placement import ALL_LAYERS, Placement
from server.config.schema import ModelConfig
from server.workers.gpu_placement import as_many_as_fit, place_chat_model
from server.workers.messages import WorkerSpec
from tests.fakes.nvml import H100
from tests.fakes.tiny_models import write_windowed

FULL = replace(H100, used_bytes=H100.total_bytes)


@pytest.fixture
def loading(tmp_path: Path) -> tuple[ModelConfig, WorkerSpec]:
    path = tmp_path / "m.gguf"
    write_windowed(path)
    config = ModelConfig.model_validate({"id": "m", "kind": "chat", "backend": "llama_cpp", "source": f"file:{path}"})
    return config, WorkerSpec(model_json="", weights_path=str(path), endpoint="", num_threads=2)


def test_a_model_that_fits_goes_to_the_gpu_whole(loading: tuple[ModelConfig, WorkerSpec]) -> None:
    assert as_many_as_fit(Placement(gpu_layers=ALL_LAYERS), *loading, (H100,)).gpu_layers == ALL_LAYERS


def test_one_that_does_not_is_computed_by_the_processor_and_said_so(
    loading: tuple[ModelConfig, WorkerSpec], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        placement = as_many_as_fit(Placement(gpu_layers=ALL_LAYERS, split="row"), *loading, (FULL,))

    assert placement == Placement(gpu_layers=0, split="row")
    assert "not all layers fit on the GPU" in caplog.text


def test_a_build_for_the_processor_has_no_gpus(loading: tuple[ModelConfig, WorkerSpec]) -> None:
    assert place_chat_model(*loading) == Placement()
