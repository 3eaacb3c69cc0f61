"""What a model takes of each device's memory, told before it is loaded. Who works it out: `memory_estimates.py`."""

from __future__ import annotations

from typing import Literal

import msgspec


class DeviceNeed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a model takes of one device's memory, in bytes.

    Attributes:
        device: `cpu` for the machine's own memory, `cuda:0` and so on for a GPU, numbered as nvidia-smi does.
        weights: The network.
        kv: Cells of the KV cache, and the states of recurrent layers.
        compute: What a step or batch of the largest size needs meanwhile.
        runtime: Of the process itself: interpreter, libraries, vocabulary, a GPU's context.
    """

    device: str
    weights: int = 0
    kv: int = 0
    compute: int = 0
    runtime: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.kv + self.compute + self.runtime


class MemoryEstimate(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a model will take, told before it is loaded.

    Attributes:
        needs: One for each device, the machine's own memory (`cpu`) first, which every model takes some of.
        caches: What its caches in the machine's memory may grow to besides, by use; it can do without.
        gpu_layers: Of a GGUF model, the layers that were counted as on a GPU.
        source: `header`: computed from what the files say. `llama.cpp`: asked of the library, which laid everything out
            without taking the memory. `none`: a model that has no weights.
    """

    needs: tuple[DeviceNeed, ...]
    caches: int = 0
    gpu_layers: int = 0
    source: Literal["header", "llama.cpp", "none"] = "header"

    def of(self, device: str) -> DeviceNeed:
        """What it takes of a device; nothing of one that it does not use."""
        return next((need for need in self.needs if need.device == device), DeviceNeed(device=device))

    @property
    def ram(self) -> int:
        """Of the machine's memory, caches left out."""
        return self.of("cpu").total

    @property
    def vram(self) -> int:
        """Of all GPUs together."""
        return sum(need.total for need in self.needs) - self.ram

    @property
    def weights(self) -> int:
        return sum(need.weights for need in self.needs)

    @property
    def kv(self) -> int:
        return sum(need.kv for need in self.needs)

    @property
    def compute(self) -> int:
        """What computing takes, and the process itself: all that is neither weights nor KV."""
        return self.ram + self.vram - self.weights - self.kv
