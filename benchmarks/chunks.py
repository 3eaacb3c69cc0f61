"""How documents should be cut, and what should be embedded of their chunks: decision 0014's figures.

    apt-get download python3.11-doc && dpkg -x python3.11-doc_*.deb unpacked
    python -m benchmarks.chunks --folder unpacked/usr/share/doc/python3.11/html      # twenty minutes on two cores

Questions are put to pages of Python's documentation (`doc_questions.py`), cut in several ways, with and without the
headings in what is embedded; at last with the reranker, at several weights. Writes benchmarks/results/chunks.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.doc_questions import Question, docstring_questions, index_questions, read_pages
from benchmarks.results import CHUNKS, Section, environment, save_section
from server.cli.eval_corpus import Models, models_of_stores
from server.config.load import load_config
from server.rag.chunker import chunk
from server.rag.documents import ChunkingStrategy, ParsedDocument, Span, Vectors
from server.rag.embedded_text import embedded_text
from server.rag.evaluation import Assessment, Estimate, Judgements, assess
from server.rag.fusion import Ranking, fuse
from server.rag.lexical_index import LexicalIndex
from server.rag.postings import postings_of
from server.rag.retriever import NUM_CANDIDATES
from server.rag.terms import chunk_terms, searched_text
from server.rag.token_spans import TokenSpans, token_spans


def _structural(max_tokens: int, parent_tokens: int) -> ChunkingStrategy:
    return ChunkingStrategy(kind="structural", max_tokens=max_tokens, overlap_tokens=0, parent_tokens=parent_tokens)


DEFAULT = "structural 240, parents 960"
CUTS = {
    "structural 160, parents 960": _structural(160, 960),
    "structural 240, parents 480": _structural(240, 480),
    DEFAULT: _structural(240, 960),
    "structural 400, parents 1600": _structural(400, 1600),
    "static 800, overlap 400": ChunkingStrategy(kind="static"),
}
BUDGETS = (1000, 2000, 4000)
"""Tokens of what is shown to a chat model, best chunk first."""

NUM_RERANKED_QUESTIONS = 120  # of each kind
NUM_RERANKED = 30
WEIGHTS = (0.0, 0.15, 0.25, 0.35, 0.45, 0.6, 0.75, 0.85, 1.0)

_SLICE = 64

Rankings = list[dict[int, float]]
"""Of each question: chunks by position, best first, with their scores."""


@dataclass(frozen=True)
class Piece:
    """A chunk on its page, with its parent."""

    page: str
    span: Span
    text: str
    num_tokens: int
    parent: Span
    num_parent_tokens: int

    def answers(self, question: Question) -> bool:
        return self.page == question.page and _holds(self.span, question)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="of Python's documentation as HTML")
    parser.add_argument("--config", type=Path, default=Path("models.yaml"))
    parser.add_argument("--out", type=Path, default=CHUNKS)
    arguments = parser.parse_args()
    pages = read_pages(arguments.folder)
    questions = {"docstring": docstring_questions(pages), "index": index_questions(arguments.folder, pages)}
    section = {
        "environment": environment(),
        "size": {"pages": len(pages), **{kind: len(asked) for kind, asked in questions.items()}},
        **asyncio.run(measure(arguments.config, pages, questions)),
    }
    save_section(section, "python documentation", path=arguments.out)
    print(json.dumps({name: section[name] for name in ("cuts", "rerank_weights")}, indent=1))


async def measure(
    config: Path, pages: Mapping[str, ParsedDocument], questions: Mapping[str, Sequence[Question]]
) -> Section:
    settings = load_config(config, environ={}).config
    asked = [question for some in questions.values() for question in some]
    async with models_of_stores(settings) as models:
        tokens = {name: await token_spans(page.text, models.embedding) for name, page in pages.items()}
        vectors = await _embed(models, [question.text for question in asked], "query")
        cuts, weights = {}, {}
        for name, strategy in CUTS.items():
            pieces = list(cut(pages, strategy, tokens))
            lexical = _by_words(pieces, asked)
            plain = await _search(models, [each.text for each in pieces], vectors, lexical)
            headed_texts = [embedded_text(each.text, heading=each.span.heading) for each in pieces]
            headed = await _search(models, headed_texts, vectors, lexical)
            cuts[name] = {
                "chunks": len(pieces),
                "lexical": figures(lexical, pieces, questions),
                **{f"{arm}, text alone": figures(found, pieces, questions) for arm, found in plain.items()},
                **{f"{arm}, with headings": figures(found, pieces, questions) for arm, found in headed.items()},
                "gain of headings": {
                    arm: gains(headed[arm], plain[arm], pieces, questions) for arm in ("dense", "fused")
                },
                "found within": found_within(headed["fused"], pieces, asked),
            }
            if name == DEFAULT:
                weights = await rerank_weights(models, headed["fused"], pieces, questions)
        return {"cuts": cuts, "rerank_weights": weights}


# ---- searching


def cut(
    pages: Mapping[str, ParsedDocument], strategy: ChunkingStrategy, tokens: Mapping[str, TokenSpans]
) -> Iterator[Piece]:
    for name, page in pages.items():
        chunked = chunk(page, strategy, tokens[name])
        sizes = np.bincount([each.parent for each in chunked.chunks], [each.num_tokens for each in chunked.chunks])
        for each in chunked.chunks:
            text = page.text[each.span.start : each.span.end]
            parent = chunked.parents[each.parent]
            yield Piece(name, each.span, text, each.num_tokens, parent, int(sizes[each.parent]))


def _by_words(pieces: Sequence[Piece], asked: Sequence[Question]) -> Rankings:
    terms = chunk_terms(
        [searched_text(each.text, heading=each.span.heading, columns="", context="") for each in pieces]
    )
    index = LexicalIndex(1, [postings_of(np.arange(len(pieces)), terms)])
    found = (index.search(question.text, NUM_CANDIDATES) for question in asked)
    return [dict(zip(ids.tolist(), scores.tolist(), strict=True)) for ids, scores in found]


async def _search(models: Models, texts: Sequence[str], queries: Vectors, lexical: Rankings) -> dict[str, Rankings]:
    cosines = queries @ (await _embed(models, texts, "document")).T
    best = np.argsort(-cosines, axis=1)[:, :NUM_CANDIDATES]
    dense = [dict(zip(row.tolist(), cosines[place][row].tolist(), strict=True)) for place, row in enumerate(best)]
    fused = [
        dict(fuse([Ranking(list(a)), Ranking(list(b))], NUM_CANDIDATES)) for a, b in zip(dense, lexical, strict=True)
    ]
    return {"dense": dense, "fused": fused}


async def _embed(models: Models, texts: Sequence[str], kind: str) -> Vectors:
    slices = [texts[start : start + _SLICE] for start in range(0, len(texts), _SLICE)]
    prompt = models.facts.prompt_for(kind)
    return np.concatenate(
        [(await models.embedding.embed(some, truncate="mean", prompt=prompt)).vectors for some in slices]
    )


# ---- measuring


def figures(found: Rankings, pieces: Sequence[Piece], questions: Mapping[str, Sequence[Question]]) -> Section:
    """nDCG@10 and MRR: of docstrings by place and by page, of index entries by page."""
    return {
        name: {measure: rounded(assessment.estimate(measure)) for measure in ("nDCG@10", "MRR")}
        for name, assessment in _assessments(found, pieces, questions).items()
    }


def gains(
    better: Rankings, other: Rankings, pieces: Sequence[Piece], questions: Mapping[str, Sequence[Question]]
) -> Section:
    ours, theirs = (_assessments(found, pieces, questions) for found in (better, other))
    return {name: rounded(ours[name].gain_over(theirs[name], "nDCG@10")) for name in ours}


def _assessments(
    found: Rankings, pieces: Sequence[Piece], questions: Mapping[str, Sequence[Question]]
) -> dict[str, Assessment]:
    rankings = iter(found)
    by_kind = {kind: [(question, list(next(rankings))) for question in asked] for kind, asked in questions.items()}
    return {
        "docstring, place": _assess(by_kind["docstring"], pieces, by_page=False),
        "docstring, page": _assess(by_kind["docstring"], pieces, by_page=True),
        "index, page": _assess(by_kind["index"], pieces, by_page=True),
    }


def _assess(found: Sequence[tuple[Question, Sequence[int]]], pieces: Sequence[Piece], *, by_page: bool) -> Assessment:
    run, gains, texts = {}, {}, {}
    for number, (question, ranked) in enumerate(found):
        wanted = question.page if by_page else "here"
        items = (
            pieces[place].page if by_page else wanted if pieces[place].answers(question) else str(place)
            for place in ranked
        )
        run[str(number)] = list(dict.fromkeys(items))
        gains[str(number)] = {wanted: 1}
        texts[str(number)] = question.text
    return assess(run, Judgements(texts, gains))


def found_within(found: Rankings, pieces: Sequence[Piece], asked: Sequence[Question]) -> Section:
    """The share of places that are among the best chunks, or their parents, of so many tokens together."""
    placed = [
        (question, list(ranked)) for question, ranked in zip(asked, found, strict=True) if question.place is not None
    ]
    return {
        what: {
            budget: round(
                float(
                    np.mean(
                        [_is_within(question, ranked, pieces, budget, parents=parents) for question, ranked in placed]
                    )
                ),
                3,
            )
            for budget in BUDGETS
        }
        for what, parents in (("chunks", False), ("parents", True))
    }


def _is_within(
    question: Question, ranked: Sequence[int], pieces: Sequence[Piece], budget: int, *, parents: bool
) -> bool:
    shown: set[tuple[str, Span]] = set()
    for piece in (pieces[place] for place in ranked):
        span, size = (piece.parent, piece.num_parent_tokens) if parents else (piece.span, piece.num_tokens)
        if (piece.page, span) in shown:
            continue
        if shown and size > budget:
            return False
        shown.add((piece.page, span))
        budget -= size
        if piece.page == question.page and _holds(span, question):
            return True
    return False


async def rerank_weights(
    models: Models, fused: Rankings, pieces: Sequence[Piece], questions: Mapping[str, Sequence[Question]]
) -> Section:
    """What the search finds by the weight of the reranker, and its gain over the weight 0."""
    assert models.reranker is not None
    some, rankings, opinions = {}, [], []
    first = 0
    for kind, asked in questions.items():
        some[kind] = asked[:NUM_RERANKED_QUESTIONS]
        for place, question in enumerate(some[kind], start=first):
            candidates = list(fused[place])[:NUM_RERANKED]
            texts = [embedded_text(pieces[each].text, heading=pieces[each].span.heading) for each in candidates]
            scored = await models.reranker.rerank(question.text, texts, truncate="end", max_tokens_per_doc=512)
            rankings.append(fused[place])
            opinions.append(dict(zip(candidates, scored.relevance.tolist(), strict=True)))
        first += len(asked)
    blended = {weight: _blended(rankings, opinions, weight) for weight in WEIGHTS}
    return {
        f"{weight:g}": {
            "nDCG@10": {
                name: round(found["nDCG@10"]["mean"], 4) for name, found in figures(ranked, pieces, some).items()
            },
            "gain over 0": gains(ranked, blended[0.0], pieces, some),
        }
        for weight, ranked in blended.items()
    }


def _blended(rankings: Rankings, opinions: Rankings, weight: float) -> Rankings:
    """As `reranking.blend`, with another weight."""
    return [
        dict(
            sorted(
                ((each, (1 - weight) * score + weight * opinion.get(each, 0.0)) for each, score in ranked.items()),
                key=lambda item: -item[1],
            )
        )
        for ranked, opinion in zip(rankings, opinions, strict=True)
    ]


def _holds(span: Span, question: Question) -> bool:
    return question.place is not None and span.start <= question.place < span.end


def rounded(estimate: Estimate) -> Section:
    return {name: round(value, 4) for name, value in asdict(estimate).items()}


if __name__ == "__main__":
    main()
