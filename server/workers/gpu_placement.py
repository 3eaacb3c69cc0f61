"""Where a chat model goes when it is loaded: as models.yaml says, or as many layers on GPUs as fit there now."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

from server.bindings.backend_gpus import backend_gpus
from server.bindings.gguf_header import read_header
from server.bindings.gpu import Gpu
from server.bindings.memory_estimate import most_gpu_layers
from server.bindings.placement import ALL_LAYERS, Placement, configured_placement
from server.config.schema import ModelConfig
from server.workers.messages import WorkerSpec
from server.workers.planned_context import planned_context

logger = logging.getLogger(__name__)


def place_chat_model(config: ModelConfig, spec: WorkerSpec) -> Placement:
    """Decide for this process, with what is free on its GPUs now.

    Raises:
        LoadFailed: GPUs are asked for, and there are none.
    """
    gpus = backend_gpus()
    placement = configured_placement(config, num_gpus=len(gpus))
    return as_many_as_fit(placement, config, spec, gpus) if config.gpu_layers == "auto" else placement


def as_many_as_fit(placement: Placement, config: ModelConfig, spec: WorkerSpec, gpus: tuple[Gpu, ...]) -> Placement:
    """Leave layers to the processor that do not fit on the GPUs."""
    if not placement.uses_gpu:
        return placement
    assert spec.weights_path is not None
    header = read_header(Path(spec.weights_path))
    options = planned_context(config, spec, header, has_gpu_layers=True)
    gpu_layers = most_gpu_layers(header, options, placement, gpus)
    if gpu_layers != ALL_LAYERS:
        free = ", ".join(f"{gpu.free_bytes >> 20} MiB of {gpu.total_bytes >> 20}" for gpu in gpus)
        extra = {"model": config.id, "gpu_layers": gpu_layers, "free": free}
        logger.warning("not all layers fit on the GPU; the others are computed by the processor", extra=extra)
    return dataclasses.replace(placement, gpu_layers=gpu_layers)
