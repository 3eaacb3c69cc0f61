"""A GPU, measured: Hearth against llama-server of the same source and flags, and against sentence-transformers.

    python -m benchmarks.gpu                # on a machine with a GPU; weights and llama-server are made first
    python -m benchmarks.gpu --rehearse     # without a GPU: tiny shapes on the processor, to see that all of it runs

Files of random weights in the shape of real models (synthetic_gguf.py, synthetic_encoders.py) are written to the user's
cache, some 25 GB. Then: the card's own limits; chat (gpu_chat.py) with unique prompts and a shared prefix, 1 to 64
clients; embeddings and reranking (gpu_encoders.py). What has not begun after `--limit-s` is left out, and said to be.
Writes benchmarks/results/gpu.json and prints the table last. A rehearsal writes no results.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from benchmarks.gpu_chat import REHEARSAL, GpuModel, Scale, measure_model
from benchmarks.gpu_encoders import measure_encoders
from benchmarks.gpu_limits import measure_limits
from benchmarks.gpu_table import gpu_table
from benchmarks.model_shapes import SHAPES, Quantisation
from benchmarks.peers.llama_server import build_llama_server, version_of
from benchmarks.peers.reranker_weights import dequantised_reranker
from benchmarks.results import GPU, Section, environment, save_section
from benchmarks.synthetic_encoders import SHAPES as ENCODER_SHAPES
from benchmarks.synthetic_encoders import write_synthetic_encoder
from benchmarks.synthetic_gguf import write_synthetic_gguf
from server.bindings.gpu import read_gpus
from server.models.cache_folder import cache_folder

MODELS: tuple[tuple[str, Quantisation], ...] = (("qwen3-8b", "Q4_K_M"), ("qwen3-30b-a3b", "Q4_K_M"))
REHEARSED: tuple[tuple[str, Quantisation], ...] = (("tiny", "Q4_K_M"), ("tiny-experts", "Q8_0"))


def main() -> None:
    arguments = parse_arguments()
    rehearses: bool = arguments.rehearse
    gpus = read_gpus()
    if not gpus and not rehearses:
        raise SystemExit("no GPU is seen here; --rehearse runs everything in small on the processor")
    scale = REHEARSAL if rehearses else Scale()
    models, embedder, reranker = prepare(rehearses=rehearses)
    binary = build_llama_server()
    started = time.monotonic()
    ends_at = started + arguments.limit_s
    results: Section = {
        "environment": {**environment(), "llama_server": version_of(binary), "gpus": [vars(gpu) for gpu in gpus]},
        "limits": measure_limits(rehearses=rehearses),
        "models": {},
    }
    for model in models:
        loads = measure_model(model, scale, repetitions=arguments.repetitions, ends_at=ends_at)
        results["models"][model.shape.name] = {"quantisation": model.quantisation, "loads": loads}
    if time.monotonic() < ends_at:
        seconds = 2.0 if rehearses else 8.0
        results["encoders"] = measure_encoders(
            embedder, reranker, seconds=seconds, rehearses=rehearses, repetitions=arguments.repetitions
        )
    results["took_s"] = round(time.monotonic() - started, 1)
    if not rehearses:
        for name, section in results.items():
            save_section(section, name, path=GPU)
    print(f"\n{gpu_table(results, scale)}\nmeasured in {results['took_s']:g} s{' (rehearsal)' * rehearses}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rehearse", action="store_true", help="tiny shapes, on whatever there is")
    parser.add_argument("--repetitions", type=int, default=2)
    parser.add_argument("--limit-s", type=float, default=420.0, help="nothing new is begun after so long")
    return parser.parse_args()


def prepare(*, rehearses: bool) -> tuple[list[GpuModel], Path, Path]:
    """Write what is missing of the weights: chat models, an embedding model, a reranker (a real one, which ranks)."""
    folder = cache_folder() / "synthetic"
    models = []
    for name, quantisation in REHEARSED if rehearses else MODELS:
        path = folder / f"{name}-{quantisation}.gguf"
        if not path.exists():
            print(f"writing {path}", flush=True)
            write_synthetic_gguf(path, SHAPES[name], quantisation)
        models.append(GpuModel(SHAPES[name], quantisation, path))
    encoder = ENCODER_SHAPES["tiny" if rehearses else "bge-m3"]
    embedder = folder / encoder.name
    write_synthetic_encoder(embedder, encoder)
    return models, embedder, dequantised_reranker()


if __name__ == "__main__":
    main()
