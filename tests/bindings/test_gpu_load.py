"""What is read of GPUs, from a driver's library that a test has written."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from server.bindings.gpu_load import gpu_reader


class Trouble(Exception):
    """As NVML says that it does not know."""


def _raise(*_args: object) -> None:
    raise Trouble


def driver(**functions: object) -> SimpleNamespace:
    """One GPU that tells everything, but for what the test says."""
    library = {
        "NVMLError": Trouble,
        "nvmlInit": lambda: None,
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetName": lambda _: "NVIDIA H100",
        "nvmlDeviceGetMemoryInfo": lambda _: SimpleNamespace(used=3, total=10),
        "nvmlDeviceGetUtilizationRates": lambda _: SimpleNamespace(gpu=50),
        "nvmlDeviceGetPowerUsage": lambda _: 350_000,
    }
    return SimpleNamespace(**{**library, **functions})


def test_a_gpu_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", driver())

    [gpu] = gpu_reader()()

    assert (gpu.name, gpu.used_bytes, gpu.total_bytes) == ("NVIDIA H100", 3, 10)
    assert (gpu.busy_share, gpu.power_watts) == (0.5, 350)


def test_what_a_gpu_does_not_tell_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", driver(nvmlDeviceGetPowerUsage=_raise))

    [gpu] = gpu_reader()()

    assert gpu.power_watts is None


def test_a_gpu_that_is_lost_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", driver(nvmlDeviceGetMemoryInfo=_raise))

    assert gpu_reader()() == ()


@pytest.mark.parametrize("library", [None, driver(nvmlInit=_raise)], ids=["no package", "no driver"])
def test_without_gpus_there_is_nothing_to_read(monkeypatch: pytest.MonkeyPatch, library: object) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", library)

    assert gpu_reader()() == ()
