"""What a GPU's failure means and what to do about it, told from the lines that CUDA, llama.cpp or torch leave behind.

Docs: docs/gpu.md has the same table for people.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_LESS = "lower gpu_layers, kv_cells or context, set kv_type: q8_0, or unload another model (see `hearth plan`)"

_OUT_OF_MEMORY = (
    r"cudaMalloc failed: out of memory",
    r"CUDA error: out of memory",
    r"torch\.(?:cuda\.)?OutOfMemoryError",
    r"CUDA out of memory",
    r"CUBLAS_STATUS_ALLOC_FAILED",
    r"(?:failed|unable) to allocate CUDA\d+ buffer",
    r"cudaErrorMemoryAllocation",
)

_FAILURES: tuple[tuple[str, str], ...] = (
    ("|".join(_OUT_OF_MEMORY), f"the GPU has not enough free memory; {_LESS}"),
    (
        r"no kernel image is available|cudaErrorNoKernelImageForDevice",
        "llama.cpp or torch was built for another GPU architecture; run: make setup",
    ),
    (
        r"CUDA driver version is insufficient|cudaErrorInsufficientDriver|unsupported toolchain",
        "the driver is older than the CUDA that this was built with; update the driver, or build with an older toolkit",
    ),
    (
        r"no CUDA-capable device|cudaErrorNoDevice|invalid device ordinal|CUDA-capable device\(s\) is/are busy",
        "the GPU is not there, or another process holds it alone; check nvidia-smi, `device` and CUDA_VISIBLE_DEVICES",
    ),
    (
        r"uncorrectable ECC error|hardware stack error|fallen off the bus|CUDA error: unspecified launch failure",
        "the GPU itself has failed; look for Xid in the kernel's log, and restart the machine if it goes on",
    ),
    (
        r"illegal memory access|misaligned address|device-side assert|CUDA error",
        "a GPU kernel has failed; if it goes on, try flash_attention: off, or gpu_layers: 0, and report it",
    ),
)
"""What lines say, most telling first, and what to do."""


def explain_gpu_failure(lines: Sequence[str]) -> str:
    """Say what the lines of a log tell of a GPU, with the line itself; empty where they tell nothing."""
    for pattern, meaning in _FAILURES:
        found = next((line for line in reversed(lines) if re.search(pattern, line)), "")
        if found:
            return f"{meaning} ({_short(found)})"
    return ""


def _short(line: str) -> str:
    """The line without what comes before CUDA's own words, at most 200 characters."""
    words = " ".join(line.split())
    return words if len(words) <= 200 else f"{words[:199]}…"
