"""Encoders on a GPU: Hearth over HTTP, sentence-transformers in a script, and the bare forward pass."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.encoder_asks import EMBEDDER_ID, RERANKER_ID, Asks, mixed_lists, rerank_ask
from benchmarks.encoder_contenders import Bare, Contender, Entry, Hearth
from benchmarks.encoder_loads import Load, Throughput
from benchmarks.encoder_rounds import Entrant, Record, by_load, run
from benchmarks.figures import Outcome
from benchmarks.prompts import Prompts
from benchmarks.results import Section
from benchmarks.servers import ROOT, ServerFailed
from server.loadgen.exchange import Ask
from server.loadgen.prompts import new_seed

_DOCUMENT_WORDS = 100
"""128 tokens with the query and what stands between them."""


@dataclass(frozen=True)
class Offline(Contender):
    """`benchmarks/peers/encode_offline.py` over the inputs of some requests."""

    kind: str
    weights: Path
    asks: Asks
    num_requests: int

    @property
    def name(self) -> str:
        return "sentence-transformers, in a script"

    def run(self, loads: Sequence[Load], seed: int) -> Iterator[tuple[Load, Outcome]]:
        bodies = [ask.body for ask in itertools.islice(self.asks(Prompts(seed)), self.num_requests)]
        arguments = ["--kind", self.kind, "--weights", str(self.weights)]
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.peers.encode_offline", *arguments],
            input=json.dumps(bodies), capture_output=True, text=True, check=False, cwd=ROOT,
        )  # fmt: skip
        if done.returncode:
            raise ServerFailed(f"the script ended with {done.returncode}: {done.stderr[-1000:]}")
        answer = json.loads(done.stdout)
        for load in loads:
            yield load, Outcome(answer["figures"], runtime=answer["runtime"])


def rerank_lists(num_documents: int) -> Asks:
    def asks(prompts: Prompts) -> Iterator[Ask]:
        while True:
            yield rerank_ask(prompts.words(8), [prompts.words(_DOCUMENT_WORDS) for _ in range(num_documents)])

    return asks


def measure_encoders(embedder: Path, reranker: Path, *, seconds: float, rehearses: bool, repetitions: int) -> Section:
    """Measure an embedding model with mixed lengths, and a reranker; by load, in the form that `bars.judge` reads."""
    num_clients, num_documents, num_requests = (4, 4, 2) if rehearses else (32, 100, 64)
    embed, rerank = mixed_lists(8), rerank_lists(num_documents)
    loads = [
        Throughput(
            name="embed", title=f"embeddings, {num_clients} clients x lists of 8 of 8 to 200 words",
            num_clients=num_clients, asks=embed, seconds=seconds,
        ),
        Throughput(
            name="rerank", title=f"4 clients x {num_documents} documents of 128 tokens",
            num_clients=4, asks=rerank, seconds=seconds,
        ),
    ]  # fmt: skip
    shared: dict[str, object] = {"backend": "sentence_transformers", "cache_mb": 0}
    embedding: Entry = {"id": EMBEDDER_ID, "kind": "embedding", "source": f"file:{embedder}", **shared}
    reranking: Entry = {"id": RERANKER_ID, "kind": "rerank", "source": f"file:{reranker}", **shared}
    entrants = [
        Entrant("hearth", Hearth((embedding,)), frozenset({"embed"})),
        Entrant("hearth", Hearth((reranking,)), frozenset({"rerank"})),
        Entrant("script", Offline("embedding", embedder, embed, num_requests), frozenset({"embed"})),
        Entrant("script", Offline("rerank", reranker, rerank, num_requests), frozenset({"rerank"})),
        Entrant("bare", Bare(embedding, embed, num_requests), frozenset({"embed"})),
    ]
    records: dict[tuple[str, str], Record] = {}
    seed = new_seed()
    for repetition in range(repetitions):
        for entrant in entrants:
            run(entrant, [load for load in loads if load.name in entrant.loads], seed + repetition, records)
    titles = {load.name: load.title for load in loads}
    return {name: {"title": titles[name], "servers": servers} for name, servers in by_load(records).items()}
