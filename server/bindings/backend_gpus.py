"""The GPUs that llama.cpp itself can use in this process: none where it was built for the CPU, or sees no card."""

from __future__ import annotations

import ctypes

import llama_cpp
from llama_cpp._ggml import libggml

from server.bindings import llama_log
from server.bindings.gpu import Gpu

_GPU_TYPES = (1, 2)  # of ggml's device types: a card, and one that shares the machine's memory


def backend_gpus() -> tuple[Gpu, ...]:
    """Describe them in llama.cpp's order, with what is free now. The first call makes their CUDA contexts."""
    llama_log.capture_log()
    llama_cpp.llama_backend_init()
    if not llama_cpp.llama_supports_gpu_offload():
        return ()
    _declare()
    handles = [libggml.ggml_backend_dev_get(number) for number in range(libggml.ggml_backend_dev_count())]
    found = [handle for handle in handles if libggml.ggml_backend_dev_type(handle) in _GPU_TYPES]
    return tuple(_describe(index, handle) for index, handle in enumerate(found))


def _describe(index: int, handle: int) -> Gpu:
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    libggml.ggml_backend_dev_memory(handle, ctypes.byref(free), ctypes.byref(total))
    name: bytes = libggml.ggml_backend_dev_description(handle)
    return Gpu(
        index=index,
        uuid="",
        name=name.decode("utf-8", "replace"),
        total_bytes=total.value,
        used_bytes=total.value - free.value,
        compute_capability="",
        driver="",
    )


def _declare() -> None:
    libggml.ggml_backend_dev_count.restype = ctypes.c_size_t
    libggml.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    libggml.ggml_backend_dev_get.restype = ctypes.c_void_p
    libggml.ggml_backend_dev_type.argtypes = [ctypes.c_void_p]
    libggml.ggml_backend_dev_type.restype = ctypes.c_int
    libggml.ggml_backend_dev_description.argtypes = [ctypes.c_void_p]
    libggml.ggml_backend_dev_description.restype = ctypes.c_char_p
    libggml.ggml_backend_dev_memory.argtypes = [ctypes.c_void_p, *[ctypes.POINTER(ctypes.c_size_t)] * 2]
    libggml.ggml_backend_dev_memory.restype = None
