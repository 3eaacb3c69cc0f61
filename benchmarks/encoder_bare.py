"""The physical limit: the forward pass that Hearth chose, over batches of the best size, without server or queue.

    python -m benchmarks.encoder_bare --model '{"id": ..., "source": "file:..."}' < bodies.json

Reads request bodies as a JSON list from standard input and computes all their inputs, tokenised and sorted by length
beforehand, in batches of several token budgets. Prints the best rate and what it was reached with, and the time of a
batch of the size that Hearth makes. A process of its own, so that memory and threads are too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from server.config.schema import ModelConfig
from server.encoders.encoder import EncodedItem, Encoder, Pairs, Texts
from server.encoders.loading import load_encoder
from server.loadgen.figures import percentiles
from server.models.cache_folder import tuning_folder
from server.workers.messages import WorkerSpec
from server.workers.tuning_cache import open_kernel_cache

BUDGETS = (512, 1024, 2048, 4096, 8192)
"""Padded tokens of a batch. On CPUs the best is where activations fit into the cache."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="entry of models.yaml, as JSON; its source is a file")
    config = ModelConfig.model_validate_json(parser.parse_args().model)
    encoder = load(config)
    items = sorted(tokenize(encoder, json.load(sys.stdin)), key=lambda item: item.num_tokens)
    seconds = {budget: run(encoder, items, budget) for budget in sorted({*BUDGETS, encoder.budget.max_tokens})}
    best = min(seconds, key=lambda budget: sum(seconds[budget]))
    figures = {
        "items_per_s": len(items) / sum(seconds[best]),
        "tokens_per_s": sum(item.num_tokens for item in items) / sum(seconds[best]),
        "best_budget": float(best),
        "mean_tokens": statistics.fmean(item.num_tokens for item in items),
        **percentiles("batch", seconds[encoder.budget.max_tokens], 50, 100),
    }
    print(json.dumps({"figures": figures, "runtime": {"details": encoder.facts.details}}))


def load(config: ModelConfig) -> Encoder[Any]:
    """As a worker does, on all cores, with the kernel that was measured to be the fastest."""
    assert config.source is not None
    weights = Path(config.source.removeprefix("file:"))
    spec = WorkerSpec(
        model_json=config.model_dump_json(),
        weights_path=str(weights),
        endpoint="",
        num_threads=len(os.sched_getaffinity(0)),
        tuning_dir=str(tuning_folder()),
    )
    return load_encoder(config, weights, num_threads=spec.num_threads, memory=open_kernel_cache(config, spec))


def tokenize(encoder: Encoder[Any], bodies: Sequence[dict[str, Any]]) -> list[EncodedItem]:
    """The inputs of embeddings or rerank requests."""
    inputs = (Texts(body["input"]) if "input" in body else Pairs(body["query"], body["documents"]) for body in bodies)
    return [item for each in inputs for item in encoder.tokenize(each)]


def run(encoder: Encoder[Any], items: Sequence[EncodedItem], budget: int) -> list[float]:
    """Seconds of each batch, once the first has been computed for warming up."""
    all_batches = list(batches(items, budget))
    encoder.forward(all_batches[0])
    return [timed(encoder, batch) for batch in all_batches]


def timed(encoder: Encoder[Any], batch: Sequence[EncodedItem]) -> float:
    started = time.perf_counter()
    encoder.forward(batch)
    return time.perf_counter() - started


def batches(items: Sequence[EncodedItem], budget: int) -> Iterator[list[EncodedItem]]:
    """Items in order, each batch as large as the padded budget allows."""
    batch: list[EncodedItem] = []
    for item in items:
        if batch and max(item.num_tokens, batch[-1].num_tokens) * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(item)
    yield batch


if __name__ == "__main__":
    main()
