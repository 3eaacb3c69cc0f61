"""From a model's configuration and weights to a loaded encoder.

The one place that chooses; heavy libraries are imported here only when the choice needs them, so that a worker
that runs ONNX does not pay for torch.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from server.config.schema import ModelConfig
from server.encoders.encoder import Encoder
from server.encoders.kernel_choice import DeviceBroken, KernelFinding, KernelMemory
from server.encoders.kernels import load_fastest, measure_folder
from server.encoders.known_pairs import check_ranking
from server.errors import HearthError, LoadFailed

logger = logging.getLogger(__name__)


def load_encoder(
    config: ModelConfig,
    weights_path: Path,
    *,
    num_threads: int,
    portable_kernels: bool = False,
    memory: KernelMemory | None = None,
) -> Encoder[Any]:
    """Load a model of kind `embedding` (its inputs are `Texts`) or `rerank` (`Pairs`).

    Takes seconds. Sets the thread counts of torch and of the tokenizers for the whole process. `portable_kernels` keeps
    llama.cpp from those that a CPU may lack. `memory` tells which of torch's and ONNX's are fastest here; without it
    nothing is measured.

    Raises:
        LoadFailed: With the reason, whatever is wrong with files, configuration or device.
        DeviceBroken: While kernels were measured. This process has to end; another may well load the model.
    """
    with _loading(config, weights_path):
        if config.backend == "llama_cpp":
            encoder = _load_gguf(config, weights_path, num_threads=num_threads, portable_kernels=portable_kernels)
        else:
            _check_folder(config, weights_path)
            encoder = load_fastest(weights_path, config, num_threads=num_threads, memory=memory)
        if config.kind == "rerank":
            check_ranking(encoder)
    return encoder


def measure_encoder(
    config: ModelConfig, weights_path: Path, *, num_threads: int, memory: KernelMemory | None
) -> KernelFinding:
    """Measure the kernels of a model that torch or ONNX runs, as its first load does; effects and errors likewise."""
    with _loading(config, weights_path):
        _check_folder(config, weights_path)
        return measure_folder(weights_path, config, num_threads=num_threads, memory=memory)


@contextmanager
def _loading(config: ModelConfig, weights_path: Path) -> Iterator[None]:
    """Set up the process for loading inside; say what went wrong there as `LoadFailed`."""
    # Before the library's first use: the batcher's pool is parallelism enough, and must not compete with compute.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    # Also before torch's: its threads wait for each other after every operation. By default they spin, for longer than
    # the other may be away where cores are contended: that made it 10 times slower, and took the chat model's time.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    try:
        yield
    except DeviceBroken:
        raise
    except Exception as exc:
        reason = exc.message if isinstance(exc, HearthError) else " ".join(str(exc).split()) or type(exc).__name__
        logger.error("encoder cannot be loaded", extra={"path": str(weights_path)}, exc_info=exc)
        reason = reason.replace(f"{weights_path.parent}/", "")  # clients read it: no business of theirs
        raise LoadFailed(f"model {config.id!r} cannot be loaded: {reason}") from exc


def _load_gguf(config: ModelConfig, path: Path, *, num_threads: int, portable_kernels: bool) -> Encoder[Any]:
    if not path.is_file():
        raise LoadFailed(f"{path} is not a GGUF file; run `hearth pull {config.id}`")
    if config.kind == "embedding":
        from server.encoders.gguf_embedder import load_gguf_embedder

        return load_gguf_embedder(path, config, num_threads=num_threads, portable_kernels=portable_kernels)
    from server.encoders.gguf_reranker import load_gguf_reranker

    return load_gguf_reranker(path, config, num_threads=num_threads, portable_kernels=portable_kernels)


def _check_folder(config: ModelConfig, weights_path: Path) -> None:
    if not weights_path.is_dir():
        raise LoadFailed(f"{weights_path} is not a folder; run `hearth pull {config.id}`")
    if config.kind == "embedding" or not (weights_path / "model.onnx").is_file():
        _check_safetensors(weights_path)


def _check_safetensors(folder: Path) -> None:
    """Refuse pickled weights, which can run code: every folder that has them must have safetensors beside them."""
    safe = {path.parent for path in folder.rglob("*.safetensors")}
    for pickled in folder.rglob("pytorch_model*.bin"):
        if pickled.parent not in safe:
            raise LoadFailed(
                f"{pickled.relative_to(folder)} is a pickle, which could run code when it is loaded; convert the "
                "model to safetensors"
            )
    if not safe:
        raise LoadFailed(f"{folder} has no weights in safetensors")
