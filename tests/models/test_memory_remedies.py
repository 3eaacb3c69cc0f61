"""What would make a model fit."""

from __future__ import annotations

from typing import Any

import pytest

from server.config.schema import ModelConfig
from server.device_needs import DeviceNeed, MemoryEstimate
from server.models.memory_remedies import find_remedies


def estimate(config: ModelConfig) -> MemoryEstimate:
    """100 bytes, and two for each token of the context; q8_0 takes one."""
    kv = (config.kv_cells or config.context or 8192) * (1 if config.kv_type == "q8_0" else 2)
    return MemoryEstimate(needs=(DeviceNeed(device="cpu", weights=100, kv=kv),))


def chat(**values: Any) -> ModelConfig:
    return ModelConfig(id="m", kind="chat", backend="llama_cpp", source="file:m.gguf", **values)


@pytest.mark.parametrize(
    ("config", "room", "ways"),
    [
        (chat(context=16384), 16484, ["kv_type: q8_0", "context: 8192"]),
        (chat(context=16384), 9000, ["context: 4096"]),
        (chat(context=16384, kv_type="f16"), 16484, ["context: 8192"]),
        (chat(context=16384, flash_attention="off"), 16484, ["context: 8192"]),
        (chat(context=512, kv_cells=16384), 1124, ["context: 512 without kv_cells"]),
        (chat(context=16384), 99, []),
    ],
)
def test_single_changes_that_suffice(config: ModelConfig, room: int, ways: list[str]) -> None:
    assert find_remedies(config, estimate, room_bytes=room) == ways


def test_encoders_have_nothing_to_change() -> None:
    config = ModelConfig(id="e", kind="embedding", backend="sentence_transformers", source="file:x")

    assert find_remedies(config, estimate, room_bytes=10**9) == []
