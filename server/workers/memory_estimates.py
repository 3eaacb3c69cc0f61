"""What each model of models.yaml will take of memory, before it is loaded; imports no model runtime."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import msgspec

from server.bindings.build_info import load_build_info
from server.bindings.context_options import has_twins
from server.bindings.gguf_header import GgufHeader, read_header
from server.bindings.gpu import Gpu, read_gpus, visible_gpus
from server.bindings.kv_size import shape_of
from server.bindings.layout import LayoutAsk, ask_layout, refined
from server.bindings.memory_estimate import estimate_chat, estimate_encoder, most_gpu_layers
from server.bindings.placement import Placement, configured_placement
from server.config.schema import KernelName, ModelConfig
from server.device_needs import DeviceNeed, MemoryEstimate
from server.encoders.encoder import usual_batch_tokens
from server.encoders.folder_estimate import estimate_folder
from server.errors import LoadFailed
from server.workers.messages import WorkerSpec
from server.workers.planned_context import planned_context, prefix_memory_bytes
from server.workers.process import child_environment
from server.workers.tuning_cache import open_kernel_cache

_SCRIPT_BYTES = 45 << 20
_CALL_TOKENS = 512
_MAX_ENCODER_TOKENS = 8192
"""What GGUF encoders compute at a time, and their longest input by default: `llama_encoder.py`, `gguf_model.py`."""


def estimate_memory(
    config: ModelConfig, spec: WorkerSpec, gpus: Sequence[Gpu], *, has_cuda: bool, asks_llama_cpp: bool = False
) -> MemoryEstimate:
    """Estimate one model as its worker would load it now. Reads headers of files; takes milliseconds.

    Args:
        spec: What its worker would be started with; `weights_path` must be there.
        gpus: Those that the server itself sees, in its order.
        has_cuda: Whether llama.cpp was built for GPUs (`BuildInfo.cuda`).
        asks_llama_cpp: Have it lay a chat model out, in a child, for a second or some; without memory being taken.

    Raises:
        LoadFailed: The files are damaged, or the configuration cannot be met; says what a load would say.
    """
    if config.backend == "script":
        return MemoryEstimate(needs=(DeviceNeed(device="cpu", runtime=_SCRIPT_BYTES),), source="none")
    assert spec.weights_path is not None
    path = Path(spec.weights_path)
    if not path.exists():
        raise LoadFailed(f"{path} is not there; run `hearth pull {config.id}`")
    seen = _gpus_of(config, gpus)
    if config.backend == "sentence_transformers":
        return _estimate_encoder(config, spec, path, seen)
    header = read_header(path)
    placement = configured_placement(config, num_gpus=len(seen) if has_cuda else 0)
    if config.kind != "chat":
        estimate = estimate_encoder(header, call_tokens=_call_tokens(config, header), placement=placement, gpus=seen)
        return msgspec.structs.replace(estimate, caches=config.cache_mb << 20)
    return _estimate_chat(config, spec, header, placement, seen, asks_llama_cpp=asks_llama_cpp)


class MemoryEstimates:
    """Estimates models as this server would start them, with what is free on its GPUs now. May be called on threads.

    Args:
        num_threads: What a worker may use unless its model says otherwise.
        tuning_dir: Folder of what was measured to be fast: models will be run that way.
    """

    def __init__(self, *, num_threads: int, tuning_dir: Path | None = None) -> None:
        self._num_threads = num_threads
        self._tuning_dir = str(tuning_dir) if tuning_dir else None

    def __call__(self, config: ModelConfig, weights: Path | None, *, asks_llama_cpp: bool = False) -> MemoryEstimate:
        """Estimate one model; arguments and errors as `estimate_memory`."""
        spec = WorkerSpec(
            model_json=config.model_dump_json(),
            weights_path=str(weights) if weights else None,
            endpoint="",
            num_threads=config.threads or self._num_threads,
            tuning_dir=self._tuning_dir,
        )
        gpus = () if config.device == "cpu" else visible_gpus(read_gpus(), os.environ)
        has_cuda = load_build_info().cuda
        return estimate_memory(config, spec, gpus, has_cuda=has_cuda, asks_llama_cpp=asks_llama_cpp)


def _is_torch_for_cpu() -> bool:
    """Whether the installed torch has no CUDA, as its version says: importing it would take seconds."""
    return importlib.metadata.version("torch").endswith("+cpu")


def _gpus_of(config: ModelConfig, gpus: Sequence[Gpu]) -> list[Gpu]:
    """Those that its worker will see."""
    if config.device == "cpu":
        return []
    if ":" not in config.device:
        return list(gpus)
    return list(gpus)[int(config.device.removeprefix("cuda:")) :][:1]


def _estimate_chat(
    config: ModelConfig,
    spec: WorkerSpec,
    header: GgufHeader,
    placement: Placement,
    gpus: Sequence[Gpu],
    *,
    asks_llama_cpp: bool,
) -> MemoryEstimate:
    options = planned_context(config, spec, header, has_gpu_layers=placement.uses_gpu)
    if placement.uses_gpu and config.gpu_layers == "auto":
        layers = most_gpu_layers(header, options, placement, gpus)
        placement = Placement(gpu_layers=layers, split=placement.split, tensor_split=placement.tensor_split)
    estimate = estimate_chat(header, options, placement, gpus, num_running=config.max_sequences)
    if asks_llama_cpp:
        assert spec.weights_path is not None
        has_window = shape_of(header).has_window
        num_ids = options.max_sequences * (2 if has_twins(has_window=has_window, streams=options.streams) else 1)
        ask = LayoutAsk(path=spec.weights_path, options=options, placement=placement, num_ids=num_ids)
        environ = child_environment(os.environ, num_threads=spec.num_threads, device=config.device)
        estimate = refined(estimate, ask_layout(ask, environ=environ))
    return msgspec.structs.replace(estimate, caches=prefix_memory_bytes(config))


def _call_tokens(config: ModelConfig, header: GgufHeader) -> int:
    """What llama.cpp computes at a time: a model that sees all tokens at once takes its longest input whole."""
    is_causal = bool(header.values.get(f"{header.architecture}.attention.causal", True))
    longest = config.context or min(header.number("context_length"), _MAX_ENCODER_TOKENS)
    return _CALL_TOKENS if is_causal else max(_CALL_TOKENS, longest)


def _estimate_encoder(config: ModelConfig, spec: WorkerSpec, path: Path, gpus: Sequence[Gpu]) -> MemoryEstimate:
    if config.device.startswith("cuda") and (not gpus or _is_torch_for_cpu()):
        raise LoadFailed(f"device is {config.device!r} but torch can use no such GPU; set device: cpu")
    device = gpus[0].device if gpus and not _is_torch_for_cpu() else "cpu"
    cache = open_kernel_cache(config, spec)
    found = cache.load() if cache and config.kernel == "auto" else None
    is_onnx = config.kind == "rerank" and (path / "model.onnx").is_file()
    exact: KernelName = "onnx" if is_onnx else "torch-fp32"
    kernel = found.best if found else exact
    if config.kernel not in ("auto", "exact"):
        kernel = cast(KernelName, config.kernel)
    return estimate_folder(
        path,
        kernel=kernel,
        device="cpu" if kernel == "onnx" else device,
        batch_tokens=(found.best_trial.batch_tokens if found else 0) or usual_batch_tokens(device),
        caches=config.cache_mb << 20,
    )
