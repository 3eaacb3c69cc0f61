"""sentence-transformers as it is used in a script: `encode` or `CrossEncoder.predict`, without a server.

    python -m benchmarks.peers.encode_offline --kind embedding --weights FOLDER < bodies.json

In half precision on a GPU, in fp32 on a CPU. Reads request bodies as a JSON list, and prints the rate of the best of
several batch sizes: the library sorts by length itself.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import CrossEncoder, SentenceTransformer

BATCH_SIZES = (32, 128, 512)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=("embedding", "rerank"), required=True)
    parser.add_argument("--weights", type=Path, required=True)
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    options = {"device": device, "model_kwargs": {"dtype": torch.float16 if device == "cuda" else torch.float32}}
    make = _embedding if arguments.kind == "embedding" else _reranking
    run, num_items = make(str(arguments.weights), options, json.load(sys.stdin))
    rates = {}
    for batch_size in BATCH_SIZES:
        try:
            run(batch_size)
            rates[batch_size] = num_items / _seconds(run, batch_size)
        except torch.OutOfMemoryError:
            break
    best = max(rates, key=lambda size: rates[size])
    figures = {"completion_rate": 1.0, "items_per_s": rates[best], "batch_size": float(best)}
    print(json.dumps({"figures": figures, "runtime": {"device": device}}))


def _seconds(run: Callable[[int], None], batch_size: int) -> float:
    started = time.perf_counter()
    run(batch_size)
    return time.perf_counter() - started


def _embedding(
    weights: str, options: dict[str, Any], bodies: list[dict[str, Any]]
) -> tuple[Callable[[int], None], int]:
    model = SentenceTransformer(weights, **options)
    texts = [text for body in bodies for text in body["input"]]

    def run(batch_size: int) -> None:
        model.encode(texts, batch_size=batch_size, normalize_embeddings=True, show_progress_bar=False)

    return run, len(texts)


def _reranking(
    weights: str, options: dict[str, Any], bodies: list[dict[str, Any]]
) -> tuple[Callable[[int], None], int]:
    """Request by request, as a script that answers queries does."""
    model = CrossEncoder(weights, **options)
    requests = [[(body["query"], document) for document in body["documents"]] for body in bodies]

    def run(batch_size: int) -> None:
        for pairs in requests:
            model.predict(pairs, batch_size=batch_size, show_progress_bar=False)

    return run, sum(map(len, requests))


if __name__ == "__main__":
    main()
