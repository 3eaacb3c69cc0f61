"""Writing an answer of 256 vectors of 1,024 numbers, as lists of numbers and as base64: its cost besides the model.

    python -m benchmarks.emit                     # seconds

From the vectors that the worker sent to the bytes of the body, in this process. Writes the section `emit` of
benchmarks/results/embeddings.json; `python -m benchmarks.encoder_table` makes the table of docs/performance.md from it.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.machine import spread
from benchmarks.results import EMBEDDINGS, Section, environment, save_section
from server.api.json_response import JsonResponse
from server.api.vector_json import Row, as_base64, as_numbers, write_rows

NUM_VECTORS, DIMENSIONS = 256, 1024

FORMATS = {"float": as_numbers, "base64": as_base64}
"""By `encoding_format`."""

LIMITS_MS = {"float": 20.0, "base64": 10.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=25)
    parser.add_argument("--out", type=Path, default=EMBEDDINGS)
    arguments = parser.parse_args()
    about = environment()
    measured = {name: asyncio.run(measure(name, arguments.repetitions)) for name in FORMATS}
    section = {"environment": about, "repetitions": arguments.repetitions, **measured}
    save_section(section, "emit", path=arguments.out)
    print(*(f"{name}: {each['ms']['median']} ms" for name, each in measured.items()), sep="\n")


async def measure(name: str, repetitions: int) -> Section:
    """Write the same vectors again and again; the first time, which warms up, does not count."""
    vectors = np.random.default_rng(0).standard_normal((NUM_VECTORS, DIMENSIONS)).astype(np.float32)
    milliseconds = []
    for _ in range(repetitions + 1):
        started = time.perf_counter()
        body = await emit(vectors, name)
        milliseconds.append(1000 * (time.perf_counter() - started))
    return {"ms": spread(milliseconds[1:], digits=2), "num_bytes": len(body)}


async def emit(vectors: npt.NDArray[np.float32], name: str) -> bytes:
    """The body of an answer, as `POST /v1/embeddings` writes it."""
    to_value = FORMATS[name]

    def to_item(index: int, row: Row) -> object:
        return {"object": "embedding", "index": index, "embedding": to_value(index, row)}

    data = await write_rows(vectors, to_item)
    usage = {"prompt_tokens": 0, "total_tokens": 0, "truncated_inputs": 0, "cached_inputs": 0}
    return bytes(JsonResponse({"object": "list", "data": data, "model": "m", "usage": usage}).body)


if __name__ == "__main__":
    main()
