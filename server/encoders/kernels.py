"""The kernels that a sentence-transformers model can have on this machine, and what they are tried with.

Docs: docs/decisions/0011-encoder-kernels.md.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from server.bindings.cpu import read_cpu
from server.bindings.gpu import find_gpus
from server.config.schema import KernelName, ModelConfig
from server.encoders.encoder import EncodedItem, Encoder, Pairs, Rows, Texts
from server.encoders.kernel_choice import (
    Candidate,
    KernelFinding,
    KernelMemory,
    Probe,
    load_with_best_kernel,
    measure_and_remember,
)

COSINE_TOLERANCE = 1e-3
"""A vector may turn so far from the exact one's: 1 - cosine."""

SCORE_TOLERANCE = 0.02
"""A rerank score, after the sigmoid, may differ so much from the exact one."""

CONVERSION_TOLERANCE = 0.2
"""The same for de-quantised weights against the int8 network they come from. That network also rounds what it computes
with to 8 bits: the difference, 0.12 at worst over real pairs, is its own error. A wrong one is off by up to 1."""

BF16_FEATURES = frozenset({"amx_bf16", "avx512_bf16", "bf16"})
"""Instructions without which bf16 is emulated, a hundred times slower."""


def load_fastest(folder: Path, config: ModelConfig, *, num_threads: int, memory: KernelMemory | None) -> Encoder[Any]:
    """Load a folder with the fastest kernel. Errors as `load_with_best_kernel`."""
    candidates, probe = _trials(folder, config, num_threads=num_threads)
    return load_with_best_kernel(candidates, probe, configured=config.kernel, memory=memory)


def measure_folder(
    folder: Path, config: ModelConfig, *, num_threads: int, memory: KernelMemory | None
) -> KernelFinding:
    """Measure all kernels of a folder, whatever is known or configured. Errors as `measure_kernels`."""
    candidates, probe = _trials(folder, config, num_threads=num_threads)
    return measure_and_remember(candidates, probe, memory)


def _trials(folder: Path, config: ModelConfig, *, num_threads: int) -> tuple[list[Candidate], Probe]:
    """The candidates, the exact one first, and what they are tried with."""
    if config.kind == "embedding":
        from server.encoders.embedder import load_embedder

        embed = partial(load_embedder, folder, config, num_threads=num_threads)
        return _torch_candidates(config, embed, COSINE_TOLERANCE), Probe(_probe_texts, turn)
    from server.encoders.reranker import ONNX_FILE, is_quantized_at_run_time, load_onnx_reranker, load_torch_reranker

    rerank = partial(load_torch_reranker, folder, config, num_threads=num_threads)
    candidates = _torch_candidates(config, rerank, SCORE_TOLERANCE)
    if (folder / ONNX_FILE).is_file():
        load_onnx = partial(load_onnx_reranker, folder, config, num_threads=num_threads)
        tolerance = CONVERSION_TOLERANCE if is_quantized_at_run_time(folder / ONNX_FILE) else SCORE_TOLERANCE
        candidates[0] = replace(candidates[0], against="onnx", tolerance=tolerance)
        candidates.insert(0, Candidate("onnx", lambda details, _batch_tokens=None: load_onnx(details=details)))
    return candidates, Probe(_probe_pairs, score_shift)


def _torch_candidates(config: ModelConfig, load: Callable[..., Encoder[Any]], tolerance: float) -> list[Candidate]:
    device = _device(config)
    exact, *others = torch_kernels(device, read_cpu().features)

    def candidate(name: KernelName, against: KernelName | None = None) -> Candidate:
        def load_it(details: Mapping[str, str], batch_tokens: int | None = None) -> Encoder[Any]:
            return load(kernel=name, batch_tokens=batch_tokens, details=details)

        return Candidate(name, load_it, against, tolerance, batch_sizes=_batch_sizes(device))

    return [candidate(exact), *(candidate(name, exact) for name in others)]


def torch_kernels(device: str, cpu_features: Collection[str]) -> tuple[KernelName, ...]:
    """Torch's number formats for a device, the exact one first, then by how much they change results."""
    if device == "cuda":
        return "torch-fp32", "torch-fp16", "torch-packed-fp16", "torch-bf16", "torch-packed-bf16"
    return ("torch-fp32", "torch-mixed-bf16", "torch-bf16") if BF16_FEATURES & set(cpu_features) else ("torch-fp32",)


def _batch_sizes(device: str) -> tuple[int, ...]:
    """What is compared: nothing on a CPU, where one size is right for all (docs/decisions/0011-encoder-kernels.md)."""
    if device != "cuda":
        return ()
    from server.encoders.torch_device import GPU_BATCH_TOKENS

    return GPU_BATCH_TOKENS


def _device(config: ModelConfig) -> str:
    """As `choose_device`, but without torch where there is nothing to ask it: ONNX does without."""
    if config.device == "cpu" or (config.device == "auto" and not find_gpus()):
        return "cpu"
    from server.encoders.torch_device import choose_device

    return choose_device(config.device)


# ---- what candidates are tried with


def turn(vectors: Rows, others: Rows) -> float:
    """How far the directions of two sets of embeddings are apart, at worst: 1 - cosine."""
    a, b = (rows.astype(np.float64) for rows in (vectors, others))
    cosines = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return float(1 - cosines.min())


def score_shift(logits: Rows, others: Rows) -> float:
    """How far two sets of rerank scores are apart after the sigmoid, at worst."""
    a, b = (1 / (1 + np.exp(-rows.astype(np.float64))) for rows in (logits, others))
    return float(np.abs(a - b).max())


def _probe_texts(embedder: Encoder[Texts]) -> list[EncodedItem]:
    return embedder.tokenize(Texts(_texts(), "end"))


def _probe_pairs(reranker: Encoder[Pairs]) -> list[EncodedItem]:
    return [item for query in _QUERIES for item in reranker.tokenize(Pairs(query, _texts()[::2], "end"))]


def _texts() -> list[str]:
    """Sixteen texts of 8 to 200 words, each about something else."""
    words = _PROSE.split()
    lengths = np.geomspace(8, 200, 16).astype(int)
    return [" ".join(islice(cycle(words), 7 * n, 7 * n + length)) for n, length in enumerate(lengths)]


_QUERIES = ("how does a ship find its way at night", "what is bread made of")

_PROSE = """
A lighthouse marks a dangerous coast and shows ships the way into a harbour at night; each has a rhythm of its own, by
which a sailor knows it. Bread is baked from flour, water, salt and yeast: the dough rests for 2 hours, rises, is
kneaded again and goes into an oven of 230 °C. The city council decided on Tuesday to widen the bridge, which 14,000
cars cross every day, although residents had asked for a tunnel. A function that calls itself must have a case in which
it does not. The patient was given 5 mg twice daily and reported neither headache nor fever. Bees tell each other by
a dance where flowers are: its angle is that to the sun, its length the distance. Payment is due within 30 days of the
invoice; after that, interest of 4 % above the base rate is charged.
"""
