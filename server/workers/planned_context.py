"""What a chat model's context and caches will be, told before it is loaded: by its header and what is remembered."""

from __future__ import annotations

import os

from server.bindings.context_options import ContextOptions
from server.bindings.gguf_header import GgufHeader
from server.bindings.kv_size import shape_of
from server.config.schema import ModelConfig
from server.workers.context_choice import choose_context, context_options, possible_choices
from server.workers.messages import WorkerSpec
from server.workers.tuning_cache import open_cache

PREFIX_MEMORY_SHARE = 16
"""One part in so many of the machine's memory is for prompts that have no place in the KV cache any more."""

MAX_PREFIX_MEMORY_BYTES = 2 << 30
"""Of a model, unless more is configured: a container may have less memory than the machine."""


def planned_context(
    config: ModelConfig, spec: WorkerSpec, header: GgufHeader, *, has_gpu_layers: bool
) -> ContextOptions:
    """The context that a chat model will most likely get: as was measured to be best, else by rule.

    Raises:
        LoadFailed: As `choose_runtime`.
    """
    shape = shape_of(header)
    length = choose_context(config.context, own=shape.context_length)
    choices = possible_choices(
        config, num_threads=spec.num_threads, context_length=length, has_gpu_layers=has_gpu_layers
    )
    cache = open_cache(config, spec)
    remembered = cache.load() if cache else None
    settings = remembered.best if remembered and choices.allow(remembered.best) else choices.rule
    return context_options(settings, shape, config, context_length=length, num_pinned=len(config.pinned_prefixes))


def prefix_memory_bytes(config: ModelConfig) -> int:
    """What a chat model may keep of earlier prompts beside its KV cache."""
    if config.prefix_memory_mb is not None:
        return config.prefix_memory_mb << 20
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(memory_bytes // PREFIX_MEMORY_SHARE, MAX_PREFIX_MEMORY_BYTES)
