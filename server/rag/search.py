"""What is asked of a search in vector stores, and what it answers. How it searches is `retriever.py`'s."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from server.rag.documents import Chunk, Parent
from server.rag.filters import Filter
from server.types import Lane

Ranker = Literal["none", "auto", "default-2024-11-15"]
"""Whether a cross-encoder has a say: not with `none`; the other two are OpenAI's names for yes, if there is one."""

StageName = Literal["dense", "lexical", "fused", "rerank", "final"]
"""Two arms search; their rankings are fused; the best of that are scored by a cross-encoder; both make the end."""


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """How to search.

    Attributes:
        filter: Only documents whose attributes it accepts count, in both arms.
        score_threshold: Hits with a lower score are left out; see `Hit.score`.
        embedding_weight, text_weight: How much each arm counts, in proportion, at least one above 0; one with 0 is not
            searched at all.
        parent_tokens: Hits get their parents as far as all of these together have about so many tokens.
        explain: Tell what happened on the way.
        lane: Of the models' work; `bulk` where nobody waits for this one search.
    """

    max_results: int = 10
    filter: Filter | None = None
    ranker: Ranker = "auto"
    score_threshold: float = 0.0
    embedding_weight: float = 1.0
    text_weight: float = 1.0
    parent_tokens: int = 0
    explain: bool = False
    lane: Lane = "interactive"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a stage has put a chunk: `rank` counts from 1; `score` is the stage's own, more is better.

    Scores are: cosine similarity (dense), BM25 (lexical), the share of the best possible (fused), 0..1 by the
    cross-encoder alone (rerank), `Hit.score` (final).
    """

    rank: int
    score: float


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A chunk that was found.

    Attributes:
        score: 0..1, falling from hit to hit. The fused score: 1 is the first place in both arms for every query; where
            a cross-encoder has a say, averaged with its own (`reranking.blend`).
        places: By the stages that have put it somewhere; of several queries, the best place.
        parent: See `SearchOptions.parent_tokens`; hits of one parent all have it.
    """

    chunk: Chunk
    score: float
    places: dict[StageName, Place]
    parent: Parent | None = None


@dataclass(frozen=True, slots=True)
class Stage:
    """What one stage made of the search, best first: chunk ids and scores, as in `Place`.

    Attributes:
        query: Of the arms, which search for each query; None of later stages.
    """

    name: StageName
    ids: tuple[int, ...]
    scores: tuple[float, ...]
    query: str | None = None


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What happened on the way to the hits.

    Attributes:
        chunks: Those that were looked at after fusion, by id.
        dropped: Why chunks of the fused stage are not among the hits, by id.
    """

    stages: tuple[Stage, ...]
    chunks: dict[int, Chunk]
    dropped: dict[int, str]


@dataclass(frozen=True, kw_only=True)
class SearchOutcome:
    """Hits, best first.

    Attributes:
        num_reranked: Chunks that the cross-encoder has scored.
        rerank_failure: Why that is none, or fewer than it should have; None: nothing is amiss.
        timings_ms: Of the stages, and `total`; the arms run at the same time.
        explanation: If it was asked for.
    """

    queries: tuple[str, ...]
    hits: tuple[Hit, ...]
    num_reranked: int = 0
    rerank_failure: str | None = None
    timings_ms: dict[str, float] = field(default_factory=dict)
    explanation: Explanation | None = None
