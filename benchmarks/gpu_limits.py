"""What the card itself can do: copying and multiplying, measured with torch; and how long it idles under a load."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import torch

from benchmarks.results import Section
from server.bindings.gpu import read_gpus

_SAMPLE_S = 0.05
_REPETITIONS = 20


def measure_limits(*, rehearses: bool) -> Section:
    """Copy bandwidth (bytes read and written), transfers from pinned memory, and half-precision products.

    Args:
        rehearses: On the processor and small, to see that it runs.
    """
    device = "cpu" if rehearses or not torch.cuda.is_available() else "cuda"
    size, width = (1 << 24, 256) if device == "cpu" else (1 << 30, 8192)
    source, target = (torch.zeros(size, dtype=torch.uint8, device=device) for _ in range(2))
    dtype = torch.float32 if device == "cpu" else torch.float16
    a, b = (torch.randn(width, width, dtype=dtype, device=device) for _ in range(2))
    limits: Section = {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "copy_gb_per_s": 2 * size / _seconds(lambda: target.copy_(source), device) / 1e9,
        "matmul_tflop_per_s": 2 * width**3 / _seconds(lambda: torch.matmul(a, b), device) / 1e12,
    }
    if device == "cuda":
        pinned = torch.zeros(size, dtype=torch.uint8, pin_memory=True)
        seconds = _seconds(lambda: target.copy_(pinned, non_blocking=True), device)
        limits["upload_gb_per_s"] = size / seconds / 1e9
    return limits


def _seconds(run: Callable[[], object], device: str) -> float:
    """Of one call, over many, after the first."""
    run()
    _wait(device)
    started = time.perf_counter()
    for _ in range(_REPETITIONS):
        run()
    _wait(device)
    return (time.perf_counter() - started) / _REPETITIONS


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


class IdleSampler:
    """Asks the driver all the time how busy the first GPU is, while its `with` block runs."""

    def __init__(self) -> None:
        self._samples: list[float] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="idle sampler", daemon=True)

    @property
    def idle_share(self) -> float | None:
        """Part of the time in which no kernel ran, by the driver's own account; None without a GPU."""
        return 1 - sum(self._samples) / len(self._samples) / 100 if self._samples else None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()

    def _sample(self) -> None:
        if not read_gpus():
            return
        import pynvml  # noqa: PLC0415  # of the extra `gpu`, which machines without one do not need

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        while not self._is_over.wait(_SAMPLE_S):
            self._samples.append(float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu))
        pynvml.nvmlShutdown()
