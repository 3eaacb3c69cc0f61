"""A second embedding model, whose vectors fit nobody else's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from server.config.schema import ModelConfig
from server.protocols import EmbeddingResult
from server.types import Lane, ModelFacts, TokenIds, Truncate
from tests.fakes.models import FakeEmbedder

WIDE = ModelConfig(id="wide", kind="embedding", backend="sentence_transformers", source="file:x")
WIDE_FACTS = ModelFacts(context_length=512, dimensions=3, prompts={"document": "doc: "}, fingerprint="wide1")


@dataclass
class WideEmbedder(FakeEmbedder):
    """Embeds a text as (cos, sin, 0) of its length plus one: three numbers, and others than `FakeEmbedder`'s."""

    facts: ModelFacts | None = field(default_factory=lambda: WIDE_FACTS)
    max_characters: int = 10_000

    async def embed(
        self,
        inputs: Sequence[str] | Sequence[TokenIds],
        *,
        truncate: Truncate = "error",
        prompt: str | None = None,
        lane: Lane = "interactive",
        normalize: bool = True,
    ) -> EmbeddingResult:
        await super().embed(inputs, truncate=truncate, prompt=prompt, lane=lane, normalize=normalize)
        return EmbeddingResult(np.stack([wide_vector(str(each)) for each in inputs]), 1)


def wide_vector(text: str) -> np.ndarray:
    angle = np.float32(len(text) + 1)
    return np.array([np.cos(angle), np.sin(angle), 0], np.float32)
