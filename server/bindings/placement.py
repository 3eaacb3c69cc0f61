"""Which parts of a GGUF model go where: to the processor, to GPUs. llama.cpp's rule, told before it is loaded."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from server.config.schema import ModelConfig, Split
from server.errors import LoadFailed

ALL_LAYERS = -1  # llama.cpp: a negative number of GPU layers means all


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a model goes, as llama.cpp is told.

    Attributes:
        gpu_layers: Counted from the end: the output layer first, then the last of the others.
        split: How they are spread over several GPUs.
        tensor_split: Parts of the GPUs; empty: by the memory that is free.
    """

    gpu_layers: int = 0
    split: Split = "layer"
    tensor_split: tuple[float, ...] = ()

    @property
    def uses_gpu(self) -> bool:
        return self.gpu_layers != 0

    @property
    def described_layers(self) -> str:
        return "all" if self.gpu_layers == ALL_LAYERS else str(self.gpu_layers)


def configured_placement(config: ModelConfig, *, num_gpus: int) -> Placement:
    """What models.yaml says, with all layers on GPUs where it leaves that open and there are some.

    Args:
        num_gpus: Those that this process sees and that llama.cpp was built for.

    Raises:
        LoadFailed: GPUs are asked for, and there are none; or there are fewer than parts.
    """
    if config.device.startswith("cuda") and num_gpus == 0:
        raise LoadFailed(
            f"device is {config.device!r} but llama.cpp finds no such GPU; see `hearth doctor`, or set device: cpu"
        )
    if num_gpus == 0 or config.device == "cpu":
        return Placement()
    if len(config.tensor_split) > num_gpus:
        raise LoadFailed(f"tensor_split has {len(config.tensor_split)} parts but there are {num_gpus} GPUs")
    layers = ALL_LAYERS if config.gpu_layers in ("auto", "all") else int(config.gpu_layers)
    return Placement(gpu_layers=layers, split=config.split, tensor_split=config.tensor_split)


def homes(placement: Placement, *, num_layers: int, free_bytes: Sequence[int]) -> list[int | None]:
    """The GPU of each layer, and of the output layer behind them, as llama.cpp assigns them; None: the processor.

    Args:
        free_bytes: Of each GPU, in order.
    """
    num_places = num_layers + 1
    wanted = num_places if placement.gpu_layers == ALL_LAYERS else min(placement.gpu_layers, num_places)
    if not free_bytes or wanted == 0:
        return [None] * num_places
    ends = [end / sum(gpu_parts(placement, free_bytes)) for end in accumulate(gpu_parts(placement, free_bytes))]
    on_gpus: list[int | None] = [min(bisect_right(ends, place / wanted), len(ends) - 1) for place in range(wanted)]
    return [None] * (num_places - wanted) + on_gpus


def gpu_parts(placement: Placement, free_bytes: Sequence[int]) -> list[float]:
    """What each GPU gets of the layers, in any unit."""
    if placement.split == "none":
        return [1.0, *[0.0] * (len(free_bytes) - 1)]
    if placement.tensor_split:
        missing = len(free_bytes) - len(placement.tensor_split)
        return [*placement.tensor_split, *[0.0] * missing]
    return [float(each) for each in free_bytes] if any(free_bytes) else [1.0] * len(free_bytes)
