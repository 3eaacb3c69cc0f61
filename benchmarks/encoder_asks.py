"""What the encoder benchmarks ask for: texts of mixed lengths, queries, documents; new ones for each seed."""

from __future__ import annotations

import itertools
import random
from base64 import b64decode
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks.prompts import Prompts
from server.loadgen.exchange import Ask, Reply

EMBEDDER_ID = "all-minilm-l6-v2"
RERANKER_ID = "ms-marco-minilm-l12-v2"

Asks = Callable[[Prompts], Iterator[Ask]]
"""Requests without end."""

BULK_LIST = 64


def embed_ask(texts: Sequence[str], **more: object) -> Ask:
    """Vectors in base64, as OpenAI's SDK asks for them."""
    body: dict[str, Any] = {"model": EMBEDDER_ID, "input": list(texts), "encoding_format": "base64", **more}
    return Ask("/v1/embeddings", body, len(texts))


def rerank_ask(query: str, documents: Sequence[str]) -> Ask:
    return Ask("/v1/rerank", {"model": RERANKER_ID, "query": query, "documents": list(documents)}, len(documents))


def mixed_lists(size: int) -> Asks:
    """Lists of texts of 8 to 200 words."""
    return lambda prompts: (embed_ask(mixed_texts(prompts, size)) for _ in itertools.count())


def mixed_texts(prompts: Prompts, count: int) -> list[str]:
    lengths = random.Random(prompts.words(8))
    return [prompts.words(lengths.randint(8, 200)) for _ in range(count)]


def bulk_lists(prompts: Prompts) -> Iterator[Ask]:
    """Marked as bulk, for servers that have lanes; others ignore the mark."""
    return (embed_ask(mixed_texts(prompts, BULK_LIST), priority="bulk") for _ in itertools.count())


def short_texts(prompts: Prompts) -> Iterator[Ask]:
    """A query each, of 8 words."""
    return (embed_ask([prompts.words(8)]) for _ in itertools.count())


def rerank_lists(prompts: Prompts) -> Iterator[Ask]:
    """32 documents of 64 words for a query of 8."""
    return (rerank_ask(prompts.words(8), [prompts.words(64) for _ in range(32)]) for _ in itertools.count())


def embed_probe() -> list[Ask]:
    """The same in every run."""
    prompts = Prompts(1)
    return [embed_ask(mixed_texts(prompts, 8)) for _ in range(4)]


def rerank_probe() -> list[Ask]:
    prompts = Prompts(1)
    query = "when was the bridge of arden built?"
    return [rerank_ask(query, [*prompts.facts(10), prompts.words(64)]) for _ in range(4)]


def answer_of(reply: Reply) -> list[list[float]]:
    """Vectors, or scores as vectors of one number, in the order of the inputs."""
    answer = reply.json
    if "results" in answer:
        scores = {each["index"]: each["relevance_score"] for each in answer["results"]}
        return [[scores[index]] for index in sorted(scores)]
    rows = sorted(answer["data"], key=lambda each: int(each["index"]))
    return [np.frombuffer(b64decode(row["embedding"]), "<f4").tolist() for row in rows]
