from __future__ import annotations

from server.bindings.gpu import parse_gpu_list


def test_gpus_are_listed_by_name() -> None:
    text = "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-1)\nGPU 1: NVIDIA L4 (UUID: GPU-2)\n"

    assert parse_gpu_list(text) == ("NVIDIA H100 80GB HBM3", "NVIDIA L4")


def test_no_gpu_is_no_name() -> None:
    assert parse_gpu_list("No devices found.\n") == ()
