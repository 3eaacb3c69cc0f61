"""How good searches are: Cranfield's 225 questions to 1,400 abstracts, each stage of a search by itself.

    python -m benchmarks.retrieval --folder ../cranfield      # half an hour on two cores

The folder holds a test collection in BEIR's layout: corpus.jsonl, queries.jsonl, qrels.tsv. It is searched as vector
stores are, with the default models in their workers; beside it bm25s with a stemmer, a word search that many people
compare with. How much the reranker should have a say is tried afterwards, over the same scores.
Writes benchmarks/results/retrieval.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import bm25s
import Stemmer

from benchmarks.bars import held_to
from benchmarks.results import RETRIEVAL, Section, environment, save_section
from server.cli.eval_corpus import models_of_stores
from server.config.load import load_config
from server.rag.beir import Passage, read_corpus, read_judgements
from server.rag.documents import ChunkingStrategy
from server.rag.evaluation import MEASURES, Assessment, Estimate, Judgements, Run, assess
from server.rag.evaluation_runs import ask_all, stage_runs
from server.rag.reranking import RerankPolicy
from server.rag.retriever import NUM_CANDIDATES, Retriever
from server.rag.search import SearchOptions, SearchOutcome
from server.rag.trial_store import open_trial_store, parsed_passage
from server.types import DEFAULT_TENANT

OPTIONS = SearchOptions(max_results=NUM_CANDIDATES, explain=True)
POLICY = RerankPolicy(timeout_s=600.0)
CHUNKING = ChunkingStrategy()
WEIGHTS = tuple(weight / 20 for weight in range(21))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="of corpus.jsonl, queries.jsonl and qrels.tsv")
    parser.add_argument("--config", type=Path, default=Path("models.yaml"))
    parser.add_argument("--out", type=Path, default=RETRIEVAL)
    arguments = parser.parse_args()
    passages = read_corpus(arguments.folder / "corpus.jsonl")
    judgements = read_judgements(arguments.folder / "queries.jsonl", arguments.folder / "qrels.tsv")
    about = environment()
    about["versions"] |= {name: version(name) for name in ("ir-measures", "bm25s", "PyStemmer")}
    outcomes, runs, details = asyncio.run(search_all(arguments.config, passages, judgements))
    runs["bm25s"] = words_by_bm25s(passages, judgements)
    assessments = {name: assess(run, judgements) for name, run in runs.items()}
    section = {
        "environment": about,
        "size": {"documents": len(passages), "questions": len(judgements.judged)},
        "models": details,
        "measures": {name: figures(assessment) for name, assessment in assessments.items()},
        "gains": gains(assessments),
        "blend": blends(outcomes, judgements),
        "bars": bars(assessments),
    }
    save_section(section, "cranfield", path=arguments.out)
    print(json.dumps({name: section[name] for name in ("measures", "bars", "gains", "blend")}, indent=1))


async def search_all(
    config: Path, passages: Sequence[Passage], judgements: Judgements
) -> tuple[dict[str, SearchOutcome], dict[str, Run], Section]:
    """Search for every question; return the answers, what each stage would have answered, and what the models are."""
    settings = load_config(config, environ={}).config
    async with (
        models_of_stores(settings) as models,
        open_trial_store(passages, models.embedding, models.facts, CHUNKING) as store,
    ):
        assert models.reranker is not None and models.reranker.facts is not None
        retriever = Retriever(store.documents, store.shelf, models.embedding, models.reranker, POLICY)
        outcomes = await ask_all(
            judgements.judged, lambda query: retriever.search(DEFAULT_TENANT, [store.store_id], [query], OPTIONS)
        )
        runs = await stage_runs(outcomes, store.documents, lambda chunk: chunk.filename)
        details = {"embedding": models.facts.details, "reranker": models.reranker.facts.details}
    return outcomes, {str(stage): run for stage, run in runs.items()}, details


def words_by_bm25s(passages: Sequence[Passage], judgements: Judgements) -> dict[str, list[str]]:
    """What bm25s finds with its defaults, English stop words and Snowball's English stemmer, in the same texts."""
    stemmer = Stemmer.Stemmer("english")

    def tokens(texts: Sequence[str]) -> bm25s.tokenization.Tokenized:
        return bm25s.tokenize(list(texts), stopwords="en", stemmer=stemmer, show_progress=False)

    index = bm25s.BM25()
    index.index(tokens([parsed_passage(passage).text for passage in passages]), show_progress=False)
    found, _ = index.retrieve(tokens(list(judgements.judged.values())), k=NUM_CANDIDATES, show_progress=False)
    return {query: [passages[row].id for row in rows] for query, rows in zip(judgements.judged, found, strict=True)}


def figures(assessment: Assessment) -> Section:
    return {name: rounded(assessment.estimate(name)) for name in MEASURES}


def gains(assessments: Mapping[str, Assessment]) -> Section:
    """How much better the fused ranking is than each arm, and the whole search than the fused ranking."""
    pairs = (("fused", "dense"), ("fused", "lexical"), ("final", "fused"), ("final", "rerank"), ("lexical", "bm25s"))
    return {
        f"{better} over {other}": {
            name: rounded(assessments[better].gain_over(assessments[other], name)) for name in MEASURES
        }
        for better, other in pairs
    }


def blends(outcomes: Mapping[str, SearchOutcome], judgements: Judgements) -> Section:
    """nDCG@10 by the weight of the reranker, had it been another one."""
    return {
        f"{weight:g}": round(
            assess({query: blended(outcome, weight) for query, outcome in outcomes.items()}, judgements)
            .estimate("nDCG@10")
            .mean,
            4,
        )
        for weight in WEIGHTS
    }


def blended(outcome: SearchOutcome, weight: float) -> list[str]:
    assert outcome.explanation is not None
    stages = {stage.name: dict(zip(stage.ids, stage.scores, strict=True)) for stage in outcome.explanation.stages}
    fused, relevance = stages["fused"], stages["rerank"]
    order = sorted(
        (chunk_id for chunk_id in fused if chunk_id in stages["final"]),
        key=lambda chunk_id: -((1 - weight) * fused[chunk_id] + weight * relevance.get(chunk_id, 0.0)),
    )
    return list(dict.fromkeys(outcome.explanation.chunks[chunk_id].filename for chunk_id in order))


def bars(assessments: Mapping[str, Assessment]) -> Section:
    """What issue 5 requires of nDCG@10, with what was measured."""
    mean = {name: assessment.estimate("nDCG@10").mean for name, assessment in assessments.items()}
    required = {
        "fused": max(0.408, mean["dense"], mean["lexical"]),
        "final": mean["fused"],
        "lexical": 0.98 * mean["bm25s"],
    }
    return {name: held_to(mean[name], least=least) for name, least in required.items()}


def rounded(estimate: Estimate) -> Section:
    return {name: round(value, 4) for name, value in asdict(estimate).items()}


if __name__ == "__main__":
    main()
