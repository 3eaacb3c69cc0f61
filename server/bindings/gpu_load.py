"""How busy and how full the NVIDIA GPUs are, as their driver's library says; nothing where there is none of them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from server.telemetry.metrics import GpuReading

logger = logging.getLogger(__name__)

MILLIWATTS = 1000


def gpu_reader() -> Callable[[], tuple[GpuReading, ...]]:
    """Return what reads all GPUs, in a millisecond; what says nothing where there is nothing to read."""
    try:
        import pynvml

        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
    except Exception as exc:  # ImportError without the package, pynvml's own errors without a driver
        logger.debug("no GPU is watched", extra={"reason": str(exc)})
        return lambda: ()

    def read() -> tuple[GpuReading, ...]:
        readings = (_read(pynvml, index, handle) for index, handle in enumerate(handles))
        return tuple(reading for reading in readings if reading is not None)

    return read


def _read(nvml: Any, index: int, handle: Any) -> GpuReading | None:
    """`nvml` is the module, whose functions raise where a GPU does not know. None: this one is lost."""
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    except nvml.NVMLError:
        return None
    return GpuReading(
        index=index,
        name=str(nvml.nvmlDeviceGetName(handle)),
        used_bytes=int(memory.used),
        total_bytes=int(memory.total),
        busy_share=_asked(nvml, lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100),
        power_watts=_asked(nvml, lambda: nvml.nvmlDeviceGetPowerUsage(handle) / MILLIWATTS),
    )


def _asked(nvml: Any, ask: Callable[[], float]) -> float | None:
    try:
        return ask()
    except nvml.NVMLError:
        return None
