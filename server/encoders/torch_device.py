"""Where torch computes, in which number format, and how much at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import torch

from server.config.schema import KernelName
from server.encoders.encoder import EncoderBroken
from server.errors import LoadFailed

GPU_BATCH_TOKENS = (4096, 8192, 16_384, 32_768, 65_536, 131_072)
"""What a GPU may compute at a time. A small model is said to keep it busy from some ten thousand tokens on only."""


@dataclass(frozen=True)
class TorchFormat:
    """A number format of torch's kernels, and how inputs are laid out for them.

    Attributes:
        weights: What a model is loaded as.
        products: What matrix products are computed in, if that differs: their weights are kept in it, and the rest
            of the network (sums, norms) stays in `weights`.
        is_packed: Whether inputs are laid end to end, as `packing.py` does, in place of being padded.
    """

    weights: torch.dtype
    products: torch.dtype | None = None
    is_packed: bool = False

    def __str__(self) -> str:
        names = [str(dtype).removeprefix("torch.") for dtype in (self.weights, self.products) if dtype]
        return ", products in ".join(names) + ", packed" * self.is_packed

    def prepare(self, model: torch.nn.Module) -> None:
        """Change a loaded model's weights to what it is computed with."""
        if self.products is not None:
            for layer in model.modules():
                if isinstance(layer, torch.nn.Linear):
                    layer.to(self.products)

    @contextmanager
    def computing(self, device: str) -> Iterator[None]:
        """Run forward passes inside.

        Raises:
            EncoderBroken: The GPU has failed: CUDA refuses every later call of this process as well.
        """
        is_mixed = self.products is not None
        try:
            with torch.inference_mode(), torch.autocast(torch.device(device).type, self.products, enabled=is_mixed):
                yield
        except torch.cuda.AcceleratorError as exc:
            raise EncoderBroken(f"the GPU failed: {exc}") from exc


TORCH_FORMATS: dict[KernelName, TorchFormat] = {
    "torch-fp32": TorchFormat(torch.float32),
    "torch-mixed-bf16": TorchFormat(torch.float32, torch.bfloat16),
    "torch-bf16": TorchFormat(torch.bfloat16),
    "torch-fp16": TorchFormat(torch.float16),
    "torch-packed-fp16": TorchFormat(torch.float16, is_packed=True),
    "torch-packed-bf16": TorchFormat(torch.bfloat16, is_packed=True),
}


def choose_device(configured: str) -> str:
    """Resolve `device` of models.yaml; `auto` takes a GPU that torch can use.

    Which one is settled: a worker sees no others (`bindings.gpu.gpu_environment`).
    """
    if configured == "cpu":
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    if configured == "auto":
        return "cpu"
    raise LoadFailed(f"device is {configured!r} but torch {torch.__version__} finds no such GPU; set device: cpu")


def send(array: npt.NDArray[Any], device: str) -> torch.Tensor:
    """Bring numbers to where they are needed. A GPU fetches them from pinned memory, while the CPU goes on."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device == "cuda" else tensor
