"""Which changes of a model's configuration would make it fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from server.config.schema import ModelConfig
from server.device_needs import MemoryEstimate


def find_remedies(
    config: ModelConfig, estimate: Callable[[ModelConfig], MemoryEstimate | None], *, room_bytes: int
) -> list[str]:
    """Say which changes, each by itself, make a model fit into so much of the machine's memory: `context: 4096`."""
    now = _ram(estimate(config))
    found = []
    for key, values in _smaller(config):
        for value in values:
            drops_cells = key == "context" and config.kv_cells is not None  # they have to follow
            together = {"kv_cells": None} if drops_cells else {}
            changed = _ram(estimate(config.model_copy(update={key: value, **together})))
            if changed < now and changed <= room_bytes:
                found.append(f"{key}: {value}" + (" without kv_cells" if drops_cells else ""))
                break
    return found


def _ram(estimate: MemoryEstimate | None) -> float:
    """With nothing known, it never fits."""
    return estimate.ram if estimate else float("inf")


def _smaller(config: ModelConfig) -> list[tuple[str, Sequence[int | str]]]:
    """What takes less, and values for it, the best first."""
    if (config.backend, config.kind) != ("llama_cpp", "chat"):
        return []
    contexts = ("context", [1 << bits for bits in range(16, 8, -1)])
    if config.kv_type == "auto" and config.flash_attention != "off":
        return [("kv_type", ("q8_0",)), contexts]
    return [contexts]
