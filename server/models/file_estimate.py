"""What a model will take of memory, told from the sizes of its files and nothing else."""

from __future__ import annotations

from pathlib import Path

from server.config.schema import ModelConfig
from server.errors import WeightsError
from server.types import DeviceNeed, MemoryEstimate

PROCESS_BYTES = 400 << 20
"""A worker before it has a model, and what it computes in."""

SCRIPT_BYTES = 45 << 20


def estimate_by_files(config: ModelConfig, weights: Path | None) -> MemoryEstimate:
    """Estimate a model; see `MemoryEstimator`."""
    if weights is None:
        return MemoryEstimate(needs=(DeviceNeed(device="cpu", runtime=SCRIPT_BYTES),), source="none")
    try:
        sizes = [path.stat().st_size for path in weights.rglob("*") if path.is_file()] or [weights.stat().st_size]
    except OSError as exc:
        raise WeightsError(f"cannot read {weights.name}: {exc.strerror}") from exc
    caches = config.cache_mb << 20 if config.kind != "chat" else 0
    need = DeviceNeed(device="cpu", weights=sum(sizes), runtime=PROCESS_BYTES)
    return MemoryEstimate(needs=(need,), caches=caches)
