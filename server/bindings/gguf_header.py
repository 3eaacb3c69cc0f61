"""What a GGUF file holds, read from its header: the names of its tensors. `llama.h` does not tell them."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from llama_cpp._ggml import libggml


class _InitParams(ctypes.Structure):
    """`gguf_init_params` of gguf.h."""

    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))


def has_tensor(path: Path, *names: str) -> bool:
    """Say whether the file, which llama.cpp has loaded before, has a tensor of one of these names."""
    libggml.gguf_init_from_file.argtypes = [ctypes.c_char_p, _InitParams]
    libggml.gguf_init_from_file.restype = ctypes.c_void_p
    libggml.gguf_find_tensor.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    libggml.gguf_find_tensor.restype = ctypes.c_int64
    libggml.gguf_free.argtypes = [ctypes.c_void_p]
    handle = libggml.gguf_init_from_file(os.fsencode(path), _InitParams(no_alloc=True, ctx=None))
    assert handle, f"{path} was read before"
    try:
        return any(libggml.gguf_find_tensor(handle, name.encode()) >= 0 for name in names)
    finally:
        libggml.gguf_free(handle)
