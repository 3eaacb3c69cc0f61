"""`hearth eval`: how well what models.yaml says finds things, measured on questions with known answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Column, Table

from server.app import spec_factory
from server.cli.client import JsonOption
from server.cli.settings import ConfigOption, cache_dir, fail, load_or_exit
from server.config.schema import HearthConfig
from server.errors import HearthError
from server.models.registry import ModelEntry, ModelRegistry
from server.models.weights import WeightsStore
from server.protocols import EmbeddingModel, RerankModel
from server.rag.beir import Passage, read_corpus, read_judgements
from server.rag.documents import ChunkingStrategy
from server.rag.evaluation import MEASURES, Assessment, Estimate, Judgements, assess, known_items
from server.rag.evaluation_runs import ask_all, stage_runs
from server.rag.reranking import RerankPolicy
from server.rag.retriever import NUM_CANDIDATES, Retriever
from server.rag.search import SearchOptions, StageName
from server.rag.trial_store import open_trial_store
from server.services.model_facts import facts_of
from server.services.store_models import StoreModels
from server.types import DEFAULT_TENANT, ModelFacts
from server.workers.supervisor import Supervisor

app = typer.Typer(help="Measure how good answers are.", no_args_is_help=True)

LABELS: dict[StageName, str] = {
    "dense": "by meaning",
    "lexical": "by words",
    "fused": "both, fused",
    "rerank": "reranker alone",
    "final": "the search",
}

_ENOUGH_TIME_S = 600.0  # how good a reranker is, is asked here, not how fast


@app.callback()
def evaluate() -> None:
    """Measure how good answers are."""


@app.command()
def retrieval(
    corpus: Annotated[Path, typer.Option(help='JSON lines of {"_id", "title", "text"}.')],
    queries: Annotated[
        Path | None, typer.Option(help='JSON lines of {"_id", "text"} [default: the titles ask for their documents]')
    ] = None,
    qrels: Annotated[Path | None, typer.Option(help="Lines of query id, document id and gain, with tabs.")] = None,
    chunk_tokens: Annotated[int, typer.Option(min=100, max=4096, help="Most tokens of a chunk.")] = 800,
    overlap_tokens: Annotated[int, typer.Option(min=0, help="Tokens that chunks share; at most half.")] = 400,
    embedding_weight: Annotated[float, typer.Option(min=0, help="Of the search by meaning.")] = 1.0,
    text_weight: Annotated[float, typer.Option(min=0, help="Of the search by words.")] = 1.0,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search a test collection as vector stores are searched, and say how good each stage is.

    Needs no server; the models are those that models.yaml gives to vector stores.
    """
    if (queries is None) != (qrels is None):
        fail("--queries and --qrels belong together; give both, or neither", code=2)
    if 2 * overlap_tokens > chunk_tokens:
        fail(f"--overlap-tokens is {overlap_tokens}; at most half of the {chunk_tokens} --chunk-tokens", code=2)
    # Logs of workers would stand between the lines, and models that are not used need not be there.
    settings = load_or_exit(config, flags={"log_level": "warning"}, require_files=False).config
    chunking = ChunkingStrategy(kind="static", max_tokens=chunk_tokens, overlap_tokens=overlap_tokens)
    options = SearchOptions(
        max_results=NUM_CANDIDATES, embedding_weight=embedding_weight, text_weight=text_weight, explain=True
    )
    try:
        passages = read_corpus(corpus)
        if queries and qrels:
            judgements = read_judgements(queries, qrels)
        else:
            judgements = known_items((passage.id, passage.title) for passage in passages)
            if not judgements.judged:
                fail(f"no title in {corpus} is fit to ask for its document; give --queries and --qrels")
        report = asyncio.run(_measure(settings, passages, judgements, chunking, options))
    except HearthError as exc:
        fail(exc.message)
    if as_json:
        typer.echo(json.dumps(_to_json(report), indent=2))
    else:
        _print(report)


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was found out, by stage of the search; a stage that did not run is left out."""

    num_documents: int
    num_queries: int
    stages: dict[StageName, Assessment]
    failures: list[str]


@dataclass(frozen=True)
class Models:
    """What vector stores are served with, loaded."""

    embedding: EmbeddingModel
    facts: ModelFacts
    reranker: RerankModel | None


async def _measure(
    settings: HearthConfig,
    passages: Sequence[Passage],
    judgements: Judgements,
    chunking: ChunkingStrategy,
    options: SearchOptions,
) -> Report:
    console = Console(stderr=True)
    policy = RerankPolicy(num_candidates=settings.rag.rerank_candidates, timeout_s=_ENOUGH_TIME_S)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        loading = bar.add_task("loading models", total=None)
        async with models_of_stores(settings) as models:
            bar.remove_task(loading)
            advance = partial(bar.advance, bar.add_task("embedding", total=len(passages)))
            async with open_trial_store(passages, models.embedding, models.facts, chunking, advance=advance) as store:
                retriever = Retriever(store.documents, store.shelf, models.embedding, models.reranker, policy)
                advance = partial(bar.advance, bar.add_task("searching", total=len(judgements.judged)))
                outcomes = await ask_all(
                    judgements.judged,
                    lambda query: retriever.search(DEFAULT_TENANT, [store.store_id], [query], options),
                    advance=advance,
                )
                runs = await stage_runs(outcomes, store.documents, lambda chunk: chunk.filename)
    return Report(
        num_documents=len(passages),
        num_queries=len(judgements.judged),
        stages={stage: assess(run, judgements) for stage, run in runs.items()},
        failures=sorted({outcome.rerank_failure for outcome in outcomes.values() if outcome.rerank_failure}),
    )


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


# ---- what is printed


def _print(report: Report) -> None:
    numbers = [Column(name, justify="right") for name in MEASURES]
    table = Table("RANKED BY", *numbers, box=None, pad_edge=False)
    for stage, assessment in report.stages.items():
        table.add_row(LABELS[stage], *(f"{assessment.estimate(name).mean:.3f}" for name in MEASURES))
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    console.print(f"\nquestions: {report.num_queries}, documents: {report.num_documents}")
    console.print("nDCG@10 of the search less that of its parts, and where it is for 95 % of such sets of questions:")
    for stage, gain in _gains(report).items():
        console.print(f"  {LABELS[stage]}: {gain.mean:+.3f}, {gain.low:+.3f} to {gain.high:+.3f}")
    for failure in report.failures:
        console.print(f"some searches did without the reranker: {failure}", markup=False)


def _gains(report: Report) -> dict[StageName, Estimate]:
    """How much better the whole is than each of its parts."""
    final = report.stages["final"]
    return {
        stage: final.gain_over(assessment, "nDCG@10") for stage, assessment in report.stages.items() if stage != "final"
    }


def _to_json(report: Report) -> dict[str, Any]:
    return {
        "num_documents": report.num_documents,
        "num_queries": report.num_queries,
        "stages": {
            stage: {name: asdict(assessment.estimate(name)) for name in MEASURES}
            for stage, assessment in report.stages.items()
        },
        "gains": {stage: asdict(gain) for stage, gain in _gains(report).items()},
        "failures": report.failures,
    }
