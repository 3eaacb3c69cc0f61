from __future__ import annotations

import sys

import pytest

from server.bindings.gpu import Gpu, gpu_environment, parse_gpu_list, parse_gpu_query, read_gpus, visible_gpus
from tests.fakes.nvml import H100, L4, FakeNvml


def test_gpus_are_listed_by_name() -> None:
    text = "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-1)\nGPU 1: NVIDIA L4 (UUID: GPU-2)\n"

    assert parse_gpu_list(text) == ("NVIDIA H100 80GB HBM3", "NVIDIA L4")


def test_no_gpu_is_no_name() -> None:
    assert parse_gpu_list("No devices found.\n") == ()


def test_a_query_tells_all_of_a_gpu() -> None:
    (gpu,) = parse_gpu_query("0, GPU-aa11, NVIDIA H100 80GB HBM3, 81559, 1024, 9.0, 570.86.15\n")

    assert gpu == H100
    assert (gpu.device, gpu.free_bytes >> 20) == ("cuda:0", 80535)


@pytest.mark.parametrize("text", ["", "No devices were found\n", "0, GPU-a, A100, [N/A], [N/A], 8.0, 535\n"])
def test_what_is_not_understood_is_no_gpu(text: str) -> None:
    assert parse_gpu_query(text) == ()


def test_the_driver_is_asked_directly_where_its_library_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)

    assert read_gpus() == (H100, L4)
    assert not nvml.is_open


@pytest.mark.parametrize("function", ["nvmlInit", "nvmlDeviceGetHandleByIndex"])
def test_a_driver_that_fails_is_no_gpu(monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    nvml = FakeNvml(breaks_in=function)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)

    assert read_gpus() == ()
    assert not nvml.is_open


def test_without_the_library_nvidia_smi_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)  # importing it raises ImportError
    monkeypatch.setenv("PATH", str(tmp_path))

    assert read_gpus() == ()


@pytest.mark.parametrize(
    ("variable", "seen"),
    [
        (None, (H100, L4)),
        ("1", (L4,)),
        ("1,0", (L4, H100)),
        ("GPU-bb", (L4,)),
        ("", ()),
        ("7,0", ()),  # what comes behind an unknown one is not seen either
    ],
)
def test_a_process_sees_what_its_environment_shows(variable: str | None, seen: tuple[Gpu, ...]) -> None:
    environ = {} if variable is None else {"CUDA_VISIBLE_DEVICES": variable}

    assert visible_gpus((H100, L4), environ) == seen


@pytest.mark.parametrize(
    ("device", "own", "shown"),
    [
        ("cpu", None, ""),
        ("cuda:1", None, "1"),
        ("cuda:1", "GPU-x,GPU-y", "GPU-y"),
        ("cuda:2", "0,1", ""),
        ("auto", "3", "3"),
        ("cuda", None, None),
    ],
)
def test_a_worker_is_shown_the_gpus_of_its_device(device: str, own: str | None, shown: str | None) -> None:
    environ = {} if own is None else {"CUDA_VISIBLE_DEVICES": own}

    made = environ | gpu_environment(device, environ)

    assert made.get("CUDA_VISIBLE_DEVICES") == shown
    assert made["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
