"""How far a pull has come: the one thing that its steps tell their caller while they run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Phase = Literal["waiting", "downloading", "unpacking", "verifying"]
"""`waiting`: another process pulls the same thing, and its result will be used."""


@dataclass(frozen=True)
class Progress:
    """A state within one phase. `total_bytes` is None while nobody knows it."""

    phase: Phase
    done_bytes: int = 0
    total_bytes: int | None = None


OnProgress = Callable[[Progress], None]
"""Called often, and by several threads: must be quick and thread-safe."""
