"""Embeddings: Hearth, Infinity and plain sentence-transformers on the same weights, in one run, in turn.

    python -m benchmarks.embeddings                               # a quarter of an hour on two cores
    python -m benchmarks.embeddings --loads c16 --repetitions 1   # replaces this load's section only
    python -m benchmarks.embeddings --only-hearth                 # prints, writes nothing

Each contender is started once a repetition and runs all loads (encoder_loads.py) over HTTP, from this process. Hearth's
vector cache is off, save in the load that is about it. Texts are new each time. Beside them stands the bare forward
pass, the physical limit (encoder_bare.py). Writes benchmarks/results/embeddings.json after each repetition.
"""

from __future__ import annotations

from benchmarks.chat_contenders import WEIGHTS as CHAT_WEIGHTS
from benchmarks.chat_loads import MODEL_ID as CHAT_ID
from benchmarks.encoder_asks import EMBEDDER_ID, mixed_lists
from benchmarks.encoder_contenders import Bare, Entry, Hearth, Infinity, Plain
from benchmarks.encoder_loads import EMBEDDING_LOADS
from benchmarks.encoder_rounds import Entrant
from benchmarks.encoder_run import run_benchmark
from benchmarks.results import EMBEDDINGS
from benchmarks.servers import ROOT

WEIGHTS = ROOT / "weights" / EMBEDDER_ID / "model"
TRAFFIC = frozenset({"probe", "c1", "c4", "c16", "c32", "l1", "l64", "short", "bulk"})

CACHED: Entry = {
    "id": EMBEDDER_ID, "kind": "embedding", "backend": "sentence_transformers", "source": f"file:{WEIGHTS}",
}  # fmt: skip
COLD: Entry = {**CACHED, "cache_mb": 0}
CHAT: Entry = {"id": CHAT_ID, "kind": "chat", "backend": "llama_cpp", "source": f"file:{CHAT_WEIGHTS}"}


def entrants() -> list[Entrant]:
    bfloat16 = ("--dtype", "bfloat16")
    return [
        Entrant("hearth", Hearth((COLD,), "without cache"), TRAFFIC),
        Entrant("infinity", Infinity(WEIGHTS, EMBEDDER_ID), TRAFFIC),
        Entrant("plain", Plain(WEIGHTS, "embedding"), TRAFFIC),
        Entrant("infinity-bf16", Infinity(WEIGHTS, EMBEDDER_ID, bfloat16), frozenset({"probe", "c16"})),
        Entrant("bare", Bare(COLD, mixed_lists(8), num_requests=64), frozenset({"c16", "bulk"})),
        Entrant("hearth", Hearth((CACHED,), "with cache"), frozenset({"again"})),
        Entrant("hearth", Hearth((COLD, CHAT), "with a chat model"), frozenset({"chat"})),
    ]


if __name__ == "__main__":
    run_benchmark(__doc__, entrants, EMBEDDING_LOADS, path=EMBEDDINGS)
