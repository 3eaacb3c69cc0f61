"""What each model needs of memory: as measured at an earlier load, else as estimated from its files."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from server.config.schema import ModelConfig
from server.device_needs import MemoryEstimate
from server.errors import HearthError
from server.models.footprints import Footprint, Footprints
from server.models.memory_plan import Memory
from server.models.weights import WeightsStore

logger = logging.getLogger(__name__)

WORTH_REMEMBERING = 1.05
"""A model that takes no more than so many times what was remembered is not written down again."""


class MemoryEstimator(Protocol):
    """Tells what a model will take. Called on threads."""

    def __call__(self, config: ModelConfig, weights: Path | None) -> MemoryEstimate:
        """Estimate a model by its files, which are there, or None if it has none.

        Raises:
            HearthError: They cannot be read, or the configuration cannot be met.
        """


@dataclass(frozen=True)
class MemoryNeed:
    """What is known of a model's need.

    Attributes:
        estimate: From its files; None where they are not there, or cannot be read.
        measured: From an earlier load, configured as it is now; None before the first.
        problem: Why there is no estimate, though the files are there.
    """

    estimate: MemoryEstimate | None
    measured: Footprint | None
    problem: str | None = None

    @property
    def memory(self) -> Memory:
        """What to plan with; nothing where nothing is known: the load will say what is wrong with the files."""
        vram = self.estimate.vram if self.estimate else 0
        if self.measured:
            return Memory(self.measured.memory_bytes, vram)
        return Memory(self.estimate.ram, vram) if self.estimate else Memory()


class MemoryNeeds:
    """Finds what models need. Reads files: call it on a thread.

    Args:
        ask: Estimates models that were never measured; may take a second or some. Where it fails, `estimate` stands in.
    """

    def __init__(
        self,
        weights: WeightsStore,
        footprints: Footprints,
        estimate: MemoryEstimator,
        *,
        ask: MemoryEstimator | None = None,
    ) -> None:
        self._weights = weights
        self._footprints = footprints
        self._estimate = estimate
        self._ask = ask

    def find(self, config: ModelConfig) -> MemoryNeed:
        path = self._weights.path_of(config)
        measured = self._footprints.find(config, path)
        if path is not None and not path.exists():
            return MemoryNeed(None, measured)
        if measured is None and self._ask is not None:
            try:
                return MemoryNeed(self._ask(config, path), None)
            except HearthError as exc:
                logger.info("memory is estimated by rule", extra={"model": config.id, "reason": exc.message})
        try:
            return MemoryNeed(self._estimate(config, path), measured)
        except HearthError as exc:
            return MemoryNeed(None, measured, exc.message)

    def remember(self, config: ModelConfig, *, memory_bytes: int, load_s: float) -> None:
        """Take note of what a loaded model takes, unless that is known. The most that it ever took counts."""
        path = self._weights.path_of(config)
        known = self._footprints.find(config, path)
        if known and known.load_s == load_s and memory_bytes <= known.memory_bytes * WORTH_REMEMBERING:
            return
        most = max(memory_bytes, known.memory_bytes if known else 0)
        self._footprints.remember(config, path, Footprint(model_id=config.id, memory_bytes=most, load_s=load_s))
