"""What an embedding or rerank model in torch or ONNX will take, told from its files before any library is imported.

Docs: docs/gpu.md.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from server.config.schema import KernelName
from server.device_needs import DeviceNeed, MemoryEstimate
from server.errors import LoadFailed

TORCH_PROCESS_BYTES = 445 << 20
"""Of a worker with torch and transformers, before it has a model. Measured; see docs/decisions/0030-gpu.md."""

ONNX_PROCESS_BYTES = 125 << 20
"""The same with onnxruntime alone. Measured."""

TORCH_CUDA_BYTES = 700 << 20
"""Of a GPU: CUDA context, kernels, workspaces of cuBLAS. An assumption: no card has been at hand."""

TORCH_CUDA_HOST_BYTES = 1500 << 20
"""Of the machine's memory, for torch's CUDA libraries. An assumption too."""

_FLOAT = 4
_VECTORS_ALIVE = 8
"""As wide as the network, by token: what a layer has at a time, with its queries, keys and values."""

_MAX_HEADER_BYTES = 100 << 20
"""safetensors' own limit."""


def estimate_folder(
    folder: Path, *, kernel: KernelName, device: str, batch_tokens: int, caches: int = 0
) -> MemoryEstimate:
    """Estimate a sentence-transformers folder, or a reranker in ONNX.

    Args:
        kernel: What computes it; a kernel that is still to be chosen takes no more than the exact one.
        device: `cpu`, or a GPU as `cuda:0`.
        batch_tokens: What is computed at a time.

    Raises:
        LoadFailed: Files are missing or damaged.
    """
    config = _read_config(folder)
    compute = batch_tokens * _FLOAT * (_VECTORS_ALIVE * config.width + 2 * config.hidden)
    if kernel == "onnx":
        weights = (folder / "model.onnx").stat().st_size
        own = DeviceNeed(device="cpu", weights=weights, compute=compute, runtime=ONNX_PROCESS_BYTES)
        return MemoryEstimate(needs=(own,), caches=caches)
    weights = sum(_bytes_of(shape, kernel, name) for name, shape in tensor_shapes(folder).items())
    if device == "cpu":
        own = DeviceNeed(device="cpu", weights=weights, compute=compute, runtime=TORCH_PROCESS_BYTES)
        return MemoryEstimate(needs=(own,), caches=caches)
    own = DeviceNeed(device="cpu", runtime=TORCH_PROCESS_BYTES + TORCH_CUDA_HOST_BYTES)
    if kernel != "torch-fp32":
        compute //= 2
    on_gpu = DeviceNeed(device=device, weights=weights, compute=compute, runtime=TORCH_CUDA_BYTES)
    return MemoryEstimate(needs=(own, on_gpu), caches=caches)


def tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors in the folder's safetensors files, or of its model.onnx, by name.

    Raises:
        LoadFailed: There are none, or a header is damaged.
    """
    paths = sorted(folder.rglob("*.safetensors"))
    if not paths:
        onnx = folder / "model.onnx"
        if not onnx.is_file():
            raise LoadFailed(f"{folder.name} has no weights in safetensors")
        return {"": (onnx.stat().st_size,)}  # int8: about a number a byte
    return {name: shape for path in paths for name, shape in _read_shapes(path).items()}


def _read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > _MAX_HEADER_BYTES:
                raise ValueError(f"it claims a header of {length} bytes")
            header: dict[str, Any] = json.loads(file.read(length))
        return {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as exc:
        raise LoadFailed(f"{path.name} has a damaged header: {exc}") from exc


def _bytes_of(shape: tuple[int, ...], kernel: KernelName, name: str) -> int:
    """Bytes of a tensor in memory, whatever it is on disk."""
    is_matrix = len(shape) > 1 and "embed" not in name
    is_half = kernel.endswith(("fp16", "bf16")) and (is_matrix or "mixed" not in kernel)
    return math.prod(shape) * (2 if is_half else _FLOAT)


class _NetworkConfig:
    """Sizes out of a config.json, by the names that architectures use for them."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.width = int(values.get("hidden_size") or values.get("dim") or values.get("d_model") or 0)
        self.hidden = int(values.get("intermediate_size") or values.get("hidden_dim") or 4 * self.width)


def _read_config(folder: Path) -> _NetworkConfig:
    path = folder / "config.json"
    try:
        return _NetworkConfig(json.loads(path.read_text(encoding="utf-8")) if path.exists() else {})
    except (ValueError, TypeError, AttributeError) as exc:
        raise LoadFailed(f"{path.name} cannot be read: {exc}") from exc
