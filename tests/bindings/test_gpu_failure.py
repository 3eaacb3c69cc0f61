"""The messages are those of real failures, as users have posted them."""

from __future__ import annotations

import pytest

from server.bindings.gpu_failure import explain_gpu_failure

CUDA_MALLOC = (
    "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 4685.30 MiB on device 0: cudaMalloc failed: out of memory"
)
CUDA_ERROR = (
    "CUDA error: out of memory",
    "  current device: 0, in function alloc at /llama.cpp/ggml/src/ggml-cuda/ggml-cuda.cu:503",
    "  cuMemCreate(&handle, reserve_size, &prop, 0)",
    "/llama.cpp/ggml/src/ggml-cuda/ggml-cuda.cu:109: CUDA error",
)
TORCH = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.69 GiB of"
    " which 1.31 GiB is free."
)
LOADING = "llama_model_load: error loading model: unable to allocate CUDA0 buffer"
NO_KERNEL = "CUDA error: no kernel image is available for execution on the device"
OLD_DRIVER = "ggml_cuda_init: failed to initialize CUDA: CUDA driver version is insufficient for CUDA runtime version"
ILLEGAL = "CUDA error: an illegal memory access was encountered"
ECC = "CUDA error: uncorrectable ECC error encountered"


@pytest.mark.parametrize(
    "lines",
    [
        [CUDA_MALLOC],
        [*CUDA_ERROR, "ptrace: Operation not permitted.", "No stack.", "#0 0x7f in raise ()"],
        ["torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB"],
        [TORCH],
        [LOADING],
        ["cuBLAS error: CUBLAS_STATUS_ALLOC_FAILED"],
    ],
)
def test_too_little_memory_is_told_with_what_to_do(lines: list[str]) -> None:
    explained = explain_gpu_failure(lines)

    assert explained.startswith("the GPU has not enough free memory; lower gpu_layers, kv_cells or context")
    assert "kv_type: q8_0" in explained


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        (NO_KERNEL, "make setup"),
        (OLD_DRIVER, "update the driver"),
        ("CUDA error: no CUDA-capable device is detected", "check nvidia-smi"),
        (ILLEGAL, "try flash_attention: off"),
        (ECC, "look for Xid"),
    ],
)
def test_other_failures_have_remedies_of_their_own(line: str, remedy: str) -> None:
    explained = explain_gpu_failure(["loading", line])

    assert remedy in explained
    assert line in explained
    assert "not enough free memory" not in explained


def test_the_words_are_kept_short() -> None:
    assert len(explain_gpu_failure([TORCH + " x" * 500])) < 500


@pytest.mark.parametrize("line", ["", "GGML_ASSERT(n_tokens > 0) failed", "MemoryError", "out of cheese"])
def test_nothing_is_said_where_no_gpu_failed(line: str) -> None:
    assert explain_gpu_failure([line]) == ""
