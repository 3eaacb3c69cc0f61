"""Embeds what stores keep: texts of documents, behind whatever somebody waits for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from server.protocols import EmbeddingModel
from server.rag.halves import HALF, Halves


async def embed_documents(texts: Sequence[str], find_embedder: Callable[[], Awaitable[EmbeddingModel]]) -> Halves:
    """Return a vector for each text. Errors as of `find_embedder` and `EmbeddingModel.embed`.

    Args:
        find_embedder: Gives the right model with `facts`, or raises; asked before and after.
    """
    embedder = await find_embedder()
    assert embedder.facts is not None
    result = await embedder.embed(
        texts,
        truncate="mean",  # a chunk may be longer than what the model reads at a time, or cut by another one's tokens
        prompt=embedder.facts.prompt_for("document"),
        lane="bulk",
    )
    await find_embedder()  # a worker that was started meanwhile may have other weights
    return result.vectors.astype(HALF)
