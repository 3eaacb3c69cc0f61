"""A GGUF model in memory: weights, vocabulary and metadata."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import llama_cpp

from server.bindings import llama_log
from server.bindings.gpu_failure import explain_gpu_failure
from server.bindings.llama_vocab import LlamaVocab
from server.bindings.placement import Placement
from server.config.schema import Split
from server.errors import LoadFailed

_SPLIT_MODES: dict[Split, int] = {
    "none": llama_cpp.LLAMA_SPLIT_MODE_NONE,
    "layer": llama_cpp.LLAMA_SPLIT_MODE_LAYER,
    "row": llama_cpp.LLAMA_SPLIT_MODE_ROW,
}

ON_CPU = Placement()


class LlamaModel:
    """Owns a `llama_model`. Contexts made from it must be closed first.

    Args:
        on_progress: Told how much of the weights has been read, 0..1, each time that it is a percent more.

    Raises:
        LoadFailed: The file is missing, no GGUF, damaged, of an unknown architecture or too large for the memory.
    """

    def __init__(
        self,
        path: Path,
        *,
        placement: Placement = ON_CPU,
        use_extra_bufts: bool = True,
        on_progress: Callable[[float], None] | None = None,
    ) -> None:
        llama_log.capture_log()
        llama_cpp.llama_backend_init()
        check_header(path)
        params, _parts = model_params(placement, use_extra_bufts=use_extra_bufts)
        progress_callback = _progress_callback(on_progress)  # must live as long as the load
        params.progress_callback = progress_callback
        llama_log.recent_errors.clear()
        self.handle = llama_cpp.llama_model_load_from_file(os.fsencode(path), params)
        if not self.handle:
            errors = list(llama_log.recent_errors)
            reason = explain_gpu_failure(errors) or (errors[0] if errors else "no reason given")
            raise LoadFailed(f"llama.cpp cannot load {path.name}: {reason}")
        self.placement, self.use_extra_bufts = placement, use_extra_bufts
        vocab = llama_cpp.llama_model_get_vocab(self.handle)
        assert vocab is not None
        self.vocab = LlamaVocab(vocab)
        self.context_length = llama_cpp.llama_model_n_ctx_train(self.handle)
        # Recurrent and hybrid models keep one state per sequence, which cannot be cut back to an earlier token.
        self.can_share_prefixes = not (
            llama_cpp.llama_model_is_recurrent(self.handle) or llama_cpp.llama_model_is_hybrid(self.handle)
        )
        self.has_window = llama_cpp.llama_model_n_swa(self.handle) > 0  # some layers see the last tokens only
        self.width: int = llama_cpp.llama_model_n_embd(self.handle)
        self.dimensions: int = llama_cpp.llama_model_n_embd_out(self.handle)
        self.labels = [  # of the classifier; one without a name where there is no classifier
            (llama_cpp.llama_model_cls_label(self.handle, index) or b"").decode("utf-8", "replace")
            for index in range(llama_cpp.llama_model_n_cls_out(self.handle))
        ]
        self.num_parameters = llama_cpp.llama_model_n_params(self.handle)
        self.architecture = self.metadata("general.architecture")

    def metadata(self, key: str) -> str:
        """Value of a GGUF metadata key as text; empty when absent."""
        # llama.cpp reports the full length (or -1) whatever the size of the buffer, so ask twice.
        probe = ctypes.create_string_buffer(1)
        length = llama_cpp.llama_model_meta_val_str(self.handle, key.encode(), probe, len(probe))
        if length < 0:
            return ""
        value = ctypes.create_string_buffer(length + 1)
        llama_cpp.llama_model_meta_val_str(self.handle, key.encode(), value, len(value))
        return value.value.decode("utf-8", "replace")

    def close(self) -> None:
        """Free the weights. Safe to call twice."""
        if self.handle:
            llama_cpp.llama_model_free(self.handle)
            self.handle = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.close()


def model_params(
    placement: Placement, *, use_extra_bufts: bool = True
) -> tuple[llama_cpp.llama_model_params, ctypes.Array[ctypes.c_float]]:
    """How llama.cpp is to load a model; the array belongs to the parameters, and must live as long."""
    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers = placement.gpu_layers
    params.split_mode = _SPLIT_MODES[placement.split]
    parts = (ctypes.c_float * llama_cpp.llama_max_devices())(*placement.tensor_split)
    if placement.tensor_split:
        params.tensor_split = parts
    params.use_extra_bufts = use_extra_bufts
    return params, parts


def _progress_callback(on_progress: Callable[[float], None] | None) -> Any:
    """What llama.cpp calls while it loads; where there is nothing to call, it prints dots."""
    told = 0.0

    def tell(fraction: float, _data: object) -> bool:
        nonlocal told
        if on_progress is not None and fraction >= told + 0.01:
            told = fraction
            on_progress(fraction)
        return True  # go on

    return llama_cpp.llama_progress_callback(tell)


def check_header(path: Path) -> None:
    """Refuse what is plainly no GGUF before llama.cpp parses it.

    Raises:
        LoadFailed: Missing, unreadable, empty or without the GGUF magic.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as exc:
        raise LoadFailed(f"cannot read {path.name}: {exc.strerror}") from exc
    if magic != b"GGUF":
        raise LoadFailed(
            f"{path.name} is not a GGUF file: it starts with {magic!r}; it is damaged or of another kind, so replace it"
        )
