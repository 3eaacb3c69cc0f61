"""Rerank: Hearth, Infinity and plain `CrossEncoder.predict` on the same weights, in one run, in turn.

    python -m benchmarks.rerank                     # five minutes on two cores
    python -m benchmarks.rerank --only-hearth       # prints, writes nothing

As `benchmarks/embeddings.py`. Hearth serves the default model as it comes, an int8 ONNX file; the others cannot load
that, so they get the same weights de-quantised (peers/reranker_weights.py). A probe tells how far the scores differ.
Writes benchmarks/results/rerank.json.
"""

from __future__ import annotations

from benchmarks.encoder_asks import RERANKER_ID, rerank_lists
from benchmarks.encoder_contenders import Bare, Entry, Hearth, Infinity, Plain
from benchmarks.encoder_loads import RERANK_LOADS
from benchmarks.encoder_rounds import Entrant
from benchmarks.encoder_run import run_benchmark
from benchmarks.peers.reranker_weights import SOURCE, dequantised_reranker
from benchmarks.results import RERANK

TRAFFIC = frozenset({"probe", "rerank"})

COLD: Entry = {
    "id": RERANKER_ID, "kind": "rerank", "backend": "sentence_transformers", "source": f"file:{SOURCE}", "cache_mb": 0,
}  # fmt: skip


def entrants() -> list[Entrant]:
    weights = dequantised_reranker()
    return [
        Entrant("hearth", Hearth((COLD,), "without cache"), TRAFFIC),
        Entrant("infinity", Infinity(weights, RERANKER_ID), TRAFFIC),
        Entrant("plain", Plain(weights, "rerank"), TRAFFIC),
        Entrant("bare", Bare(COLD, rerank_lists, num_requests=8), frozenset({"rerank"})),
    ]


if __name__ == "__main__":
    run_benchmark(__doc__, entrants, RERANK_LOADS, path=RERANK)
