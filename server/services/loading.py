"""Loading and unloading models when an operator says so, and what their workers have logged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from server.models.registry import ModelRegistry
from server.workers.keeper import Keeper
from server.workers.recent_lines import RecentLine, RecentLines

PROMPT_END_S = 2.0
"""A model that is unloaded within this time is unloaded by the answer already."""


class LoadingService:
    """Acts on the keepers of models, by id or alias; of a RAG model on those of its chat model."""

    def __init__(self, registry: ModelRegistry, find_keeper: Callable[[str], Keeper], lines: RecentLines) -> None:
        self._registry = registry
        self._find_keeper = find_keeper
        self._lines = lines

    async def load(self, name: str) -> None:
        """Begin to load a model, or see that it is loaded; one that has just failed is tried again.

        Raises:
            ModelNotFound: There is none.
            NoRoom: It does not fit into memory.
        """
        keeper = self._find_keeper(self._id_of(name))
        if keeper.client.state == "draining":
            await asyncio.wait((keeper.unload(),))
        keeper.load(insists=True)
        await keeper.client.admitted()

    async def unload(self, name: str) -> None:
        """Begin to free a model's memory; the next request loads it again. Its running requests may end first.

        Raises:
            ModelNotFound: There is none.
        """
        unloading = self._find_keeper(self._id_of(name)).unload()
        await asyncio.wait((unloading,), timeout=PROMPT_END_S)

    def lines(self, name: str | None, *, after: int, limit: int) -> list[RecentLine]:
        """What the workers of a model, or of all, have logged lately behind a line, oldest first.

        Raises:
            ModelNotFound: There is no such model.
        """
        model_id = None if name is None else self._id_of(name)
        return self._lines.after(after, model_id=model_id, limit=limit)

    def _id_of(self, name: str) -> str:
        rag_model = self._registry.rag_model(name)
        entry = self._registry.chat_of(rag_model) if rag_model else self._registry.resolve(name)
        return entry.config.id
