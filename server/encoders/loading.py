"""From a model's configuration and weights to a loaded encoder.

The one place that chooses; heavy libraries are imported here only when the choice needs them, so that a worker
that runs ONNX does not pay for torch.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from server.config.schema import ModelConfig
from server.encoders.encoder import Encoder
from server.errors import HearthError, LoadFailed

logger = logging.getLogger(__name__)


def load_encoder(config: ModelConfig, weights_path: Path, *, num_threads: int) -> Encoder[Any]:
    """Load a model of kind `embedding` (its inputs are texts) or `rerank` (pairs of query and document).

    Takes seconds. Sets the thread counts of torch and of the tokenizers for the whole process.

    Raises:
        LoadFailed: With the reason, whatever is wrong with files, configuration or device.
    """
    # Before the library's first use: the batcher's pool is parallelism enough, and must not compete with compute.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        return _load(config, weights_path, num_threads=num_threads)
    except Exception as exc:
        reason = exc.message if isinstance(exc, HearthError) else " ".join(str(exc).split()) or type(exc).__name__
        logger.error("encoder cannot be loaded", extra={"path": str(weights_path)}, exc_info=exc)
        reason = reason.replace(f"{weights_path.parent}/", "")  # clients read it: no business of theirs
        raise LoadFailed(f"model {config.id!r} cannot be loaded: {reason}") from exc


def _load(config: ModelConfig, weights_path: Path, *, num_threads: int) -> Encoder[Any]:
    if config.unserved_reason:
        raise LoadFailed(config.unserved_reason)
    if not weights_path.is_dir():
        raise LoadFailed(f"{weights_path} is not a folder; run `hearth pull {config.id}`")
    if config.kind == "embedding":
        _check_safetensors(weights_path)
        from server.encoders.embedder import load_embedder

        return load_embedder(weights_path, config, num_threads=num_threads)
    from server.encoders.reranker import load_onnx_reranker, load_torch_reranker

    if (weights_path / "model.onnx").is_file():
        return load_onnx_reranker(weights_path, config, num_threads=num_threads)
    _check_safetensors(weights_path)
    return load_torch_reranker(weights_path, config, num_threads=num_threads)


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
