"""The process behind `layout.py`: lays a model and a context out, and prints what llama.cpp logs meanwhile."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Final

import llama_cpp
import msgspec

from server.bindings.layout import LayoutAsk
from server.bindings.llama_context import context_params
from server.bindings.llama_model import check_header, model_params
from server.errors import LoadFailed

_ERROR_LEVEL = 4


def _on_log(level: int, text: bytes, _user_data: ctypes.c_void_p) -> None:
    stream = sys.stderr if level == _ERROR_LEVEL else sys.stdout
    stream.write(text.decode("utf-8", "replace"))


_callback: Final = llama_cpp.llama_log_callback(_on_log)  # must outlive every native call


def main() -> None:
    ask = msgspec.json.decode(sys.stdin.buffer.read(), type=LayoutAsk)
    llama_cpp.llama_log_set(_callback, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    try:
        check_header(Path(ask.path))
    except LoadFailed as exc:
        sys.exit(exc.message)
    params, _parts = model_params(ask.placement)
    params.no_alloc, params.load_mode = True, llama_cpp.LLAMA_LOAD_MODE_NONE
    model = llama_cpp.llama_model_load_from_file(os.fsencode(ask.path), params)
    if not model:
        sys.exit("it cannot be loaded")
    if not llama_cpp.llama_init_from_model(model, context_params(ask.options, num_ids=ask.num_ids)):
        sys.exit("no context can be made")
    sys.stdout.flush()
    os._exit(0)  # nothing was taken, so there is nothing to free


if __name__ == "__main__":
    main()
