"""Evaluates searches in a test collection, in a vector store of its own, with models in workers of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial

from rich.console import Console
from rich.progress import Progress

from server.app import spec_factory
from server.cli.settings import cache_dir
from server.config.schema import HearthConfig
from server.models.registry import ModelEntry, ModelRegistry
from server.models.weights import WeightsStore
from server.protocols import EmbeddingModel, RerankModel
from server.rag.beir import Passage
from server.rag.documents import ChunkingStrategy
from server.rag.evaluation import Judgements
from server.rag.evaluation_runs import measure
from server.rag.reranking import RerankPolicy
from server.rag.retriever import NUM_CANDIDATES, Retriever
from server.rag.search import SearchOptions, SearchOutcome
from server.rag.trial_store import TrialStore, open_trial_store
from server.services.evaluation import Configuration, Evaluation
from server.services.model_facts import facts_of
from server.services.store_models import StoreModels
from server.types import DEFAULT_TENANT, ModelFacts
from server.workers.supervisor import Supervisor

_ENOUGH_TIME_S = 600.0  # how good a reranker is, is asked here, not how fast


@dataclass(frozen=True)
class Models:
    """What vector stores are served with, loaded."""

    embedding: EmbeddingModel
    facts: ModelFacts
    reranker: RerankModel | None


async def evaluate_corpus(
    settings: HearthConfig,
    passages: Sequence[Passage],
    judgements: Judgements,
    chunking: ChunkingStrategy,
    configurations: Sequence[Configuration],
) -> Evaluation:
    """Cut, embed and search the passages with the models that `settings` give to vector stores.

    Raises:
        ModelNotFound: There is no embedding model.
        ModelUnavailable: One cannot be loaded, or cannot answer.
    """
    console = Console(stderr=True)
    policy = RerankPolicy(num_candidates=settings.rag.rerank_candidates, timeout_s=_ENOUGH_TIME_S)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        loading = bar.add_task("loading models", total=None)
        async with models_of_stores(settings) as models:
            bar.remove_task(loading)
            advance = partial(bar.advance, bar.add_task("embedding", total=len(passages)))
            async with open_trial_store(passages, models.embedding, models.facts, chunking, advance=advance) as store:
                trial = _Trial(
                    store, Retriever(store.documents, store.shelf, models.embedding, models.reranker, policy)
                )
                results = []
                for each in configurations:
                    advance = partial(bar.advance, bar.add_task("searching", total=len(judgements.judged)))
                    search = partial(trial.search, options=each.options)
                    results.append((each, await measure(judgements, search, trial.items_of, advance=advance)))
    known = {passage.id for passage in passages}
    wanted = {item for gains in judgements.gains.values() for item, gain in gains.items() if gain > 0}
    return Evaluation(
        judgements=judgements, judged="file", unknown_items=tuple(sorted(wanted - known)), results=tuple(results)
    )


@dataclass(frozen=True)
class _Trial:
    store: TrialStore
    retriever: Retriever

    async def search(self, query: str, *, options: SearchOptions) -> SearchOutcome:
        explained = replace(options, max_results=NUM_CANDIDATES, explain=True)
        return await self.retriever.search(DEFAULT_TENANT, [self.store.store_id], [query], explained)

    async def items_of(self, chunk_ids: Sequence[int]) -> Mapping[int, str]:
        return {chunk.id: chunk.filename for chunk in await self.store.documents.chunks(chunk_ids)}


@asynccontextmanager
async def models_of_stores(settings: HearthConfig) -> AsyncIterator[Models]:
    """Load the models that vector stores are served with, in workers that end with the context.

    Raises:
        ModelNotFound: There is no embedding model.
        ModelUnavailable: One cannot be loaded.
    """
    weights = WeightsStore(settings.server.weights_dir, cache_dir())
    supervisor = Supervisor(settings.server.limits)
    entries = [
        ModelEntry(model, supervisor.add(model, spec_factory(model, settings, weights))) for model in settings.models
    ]
    registry = ModelRegistry(entries)
    try:
        _, embedding = registry.embedding(settings.rag.embedding_model)
        reranker = StoreModels(registry, settings.rag).reranker()
        if reranker is not None:
            await reranker.rerank("hello", ["hello"])  # a model is loaded when something is asked of it
        yield Models(embedding, await facts_of(embedding), reranker)
    finally:
        await supervisor.stop()
