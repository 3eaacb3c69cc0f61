"""llama.cpp's log, brought into Python's logging; the last errors are kept to explain a failed load."""

from __future__ import annotations

import ctypes
import logging
from collections import deque
from typing import Final

import llama_cpp

logger = logging.getLogger("llama.cpp")

_LEVELS: Final = {1: logging.DEBUG, 2: logging.DEBUG, 3: logging.WARNING, 4: logging.ERROR}  # ggml: none debug..error
_CONTINUATION: Final = 5  # ggml: the rest of the line before

recent_errors: Final[deque[str]] = deque(maxlen=8)
"""Last warnings and errors, oldest first. llama.cpp has one log per process, hence a module-level one here."""


def _on_log(level: int, text: bytes, _user_data: ctypes.c_void_p) -> None:
    line = text.decode("utf-8", "replace").strip()
    if not line or level == _CONTINUATION:
        return
    python_level = _LEVELS.get(level, logging.DEBUG)
    if python_level >= logging.WARNING:
        recent_errors.append(line)
    # NOTE: llama.cpp warns about much that is harmless (overridden token types, unused cells); people see it at debug.
    logger.log(logging.ERROR if python_level == logging.ERROR else logging.DEBUG, line)


_callback: Final = llama_cpp.llama_log_callback(_on_log)  # must outlive every native call


def capture_log() -> None:
    """Route llama.cpp's log here instead of stderr. Call once, before the first load."""
    llama_cpp.llama_log_set(_callback, ctypes.c_void_p(0))
