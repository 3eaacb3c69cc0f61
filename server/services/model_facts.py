"""What a model can do, as its worker found out."""

from __future__ import annotations

from server.protocols import EmbeddingModel
from server.types import ModelFacts


async def facts_of(embedder: EmbeddingModel) -> ModelFacts:
    """What the model can do. One that has never been loaded, being lazy, is loaded by giving it something to do."""
    if embedder.facts is None:
        await embedder.embed(["hello"])
    assert embedder.facts is not None
    return embedder.facts
