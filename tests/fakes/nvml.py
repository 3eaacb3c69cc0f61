"""NVIDIA's management library (nvidia-ml-py) as far as it is used, with two cards."""
# ruff: noqa: N802 (the library's own names)

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace

from server.bindings.gpu import Gpu

H100 = Gpu(0, "GPU-aa11", "NVIDIA H100 80GB HBM3", 81559 << 20, 1024 << 20, "9.0", "570.86.15")
L4 = replace(H100, index=1, uuid="GPU-bb22", name="NVIDIA L4", compute_capability="8.9")


@dataclass
class FakeNvml:
    """Put it into `sys.modules` as `pynvml`. `breaks_in` names the function that the driver fails in."""

    gpus: tuple[Gpu, ...] = (H100, L4)
    breaks_in: str = ""
    is_open: bool = False

    class NVMLError(Exception):
        pass

    def _work(self, name: str) -> None:
        if name == self.breaks_in:
            raise self.NVMLError(name)

    def nvmlInit(self) -> None:
        self._work("nvmlInit")
        self.is_open = True

    def nvmlShutdown(self) -> None:
        self.is_open = False

    def nvmlSystemGetDriverVersion(self) -> str:
        return H100.driver

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Gpu:
        self._work("nvmlDeviceGetHandleByIndex")
        return self.gpus[index]

    def nvmlDeviceGetMemoryInfo(self, handle: Gpu) -> SimpleNamespace:
        return SimpleNamespace(total=handle.total_bytes, used=handle.used_bytes)

    def nvmlDeviceGetCudaComputeCapability(self, handle: Gpu) -> tuple[int, int]:
        major, minor = handle.compute_capability.split(".")
        return int(major), int(minor)

    def nvmlDeviceGetUUID(self, handle: Gpu) -> str:
        return handle.uuid

    def nvmlDeviceGetName(self, handle: Gpu) -> str:
        return handle.name
