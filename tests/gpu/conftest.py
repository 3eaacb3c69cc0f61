"""Tests that need a GPU: skipped where there is none, and failing there when one was promised (`REQUIRE_GPU=1`)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from server.bindings.build_info import load_build_info
from server.bindings.gpu import Gpu, read_gpus, visible_gpus
from server.config.load import load_config
from server.models.weights import WeightsStore
from tests.integration.live_models import CHAT, REPOSITORY


def _missing() -> str:
    """Why GPU tests cannot run here; empty where they can."""
    if not visible_gpus(read_gpus(), os.environ):
        return "no GPU is seen here"
    if not load_build_info().cuda:
        return "llama.cpp was built without CUDA; run: make setup"
    return ""


@pytest.fixture(scope="session", autouse=True)
def _gpu_is_there() -> None:
    if missing := _missing():
        if os.environ.get("REQUIRE_GPU") == "1":
            pytest.fail(f"REQUIRE_GPU=1 but {missing}")
        pytest.skip(missing)


@pytest.fixture
def gpu() -> Gpu:
    """The first one, as it is now."""
    return visible_gpus(read_gpus(), os.environ)[0]


@pytest.fixture(scope="session")
def chat_weights() -> Path:
    """The default chat model: small, real, and the same on every machine."""
    config = load_config(REPOSITORY / "models.yaml", environ=os.environ).config
    model = next(each for each in config.models if each.id == CHAT)
    status = WeightsStore(config.server.weights_dir, Path(os.devnull)).check(model)
    assert status.state == "ready" and status.path, f"{status.reason}; run `hearth pull {CHAT}`"
    return status.path
