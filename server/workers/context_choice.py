"""The sizes of a chat model's context: what models.yaml leaves open, and what follows from a choice.

Knows no llama.cpp, so that memory can be planned before anything is loaded.
"""

from __future__ import annotations

from typing import Protocol

from server.bindings.context_options import ContextOptions, max_sequences
from server.bindings.cpu import read_cpu
from server.config.schema import KvType, ModelConfig
from server.errors import LoadFailed
from server.workers.tuning import Choices, Layout, RuntimeSettings

DEFAULT_MAX_CONTEXT = 8192
"""Tokens of a request when models.yaml says nothing: more costs memory that most do not need."""

NUM_IDLE_IDS = 64
"""Sequence ids for prefixes that are kept for later requests, besides those of running sequences."""

_UBATCH_TOKENS = (512, 256, 1024, 2048)
"""llama.cpp's default first."""


class Network(Protocol):
    """What a context's sizes depend on: a loaded model tells it, and so does the header of its file."""

    @property
    def has_window(self) -> bool: ...

    @property
    def can_share_prefixes(self) -> bool: ...


def choose_context(configured: int | None, *, own: int) -> int:
    """Decide how many tokens one request may have: as configured, or what the model was made for, within reason.

    Raises:
        LoadFailed: More are configured than the model was made for.
    """
    if configured is not None and configured > own:
        raise LoadFailed(f"context is {configured} but the model was made for {own} tokens; lower context")
    return configured or min(own, DEFAULT_MAX_CONTEXT)


def num_cells(config: ModelConfig, context_length: int) -> int:
    """Decide how many tokens the KV cache holds."""
    num_contexts = config.max_sequences if config.kv == "streams" else 2
    return max(config.kv_cells or num_contexts * context_length, context_length)


def possible_choices(config: ModelConfig, *, num_threads: int, context_length: int, has_gpu_layers: bool) -> Choices:
    """The values to compare, the rule's first; a single one where models.yaml or the machine decides.

    Raises:
        LoadFailed: Streams are configured, but not enough cells for them.
    """
    kv = _layouts(config, context_length)
    # With AMX it was a quarter as fast; without, as fast with short contexts, half as fast again with long ones.
    rule_for_flash = has_gpu_layers or not read_cpu().has_amx
    flash: tuple[bool, ...] = (rule_for_flash, not rule_for_flash)
    if config.flash_attention != "auto":
        flash = (config.flash_attention == "on",)
    elif config.kv_type not in ("auto", "f16"):
        flash = (True,)  # llama.cpp has no other way
    kv_types: tuple[KvType, ...] = ("f16", "q8_0") if True in flash else ("f16",)
    if config.kv_type != "auto":
        kv_types = (config.kv_type,)
    threads = _distinct(num_threads, num_threads - 1, num_threads // 2) if config.threads is None else (num_threads,)
    ubatches = _distinct(*(min(size, config.batch_tokens) for size in _UBATCH_TOKENS))
    if config.ubatch_tokens is not None:
        ubatches = (config.ubatch_tokens,)
    rule = RuntimeSettings(
        kv=kv[0],
        flash_attention=flash[0],
        kv_type=kv_types[0],
        threads=threads[0],
        ubatch_tokens=ubatches[0],
    )
    return Choices(rule=rule, kv=kv, flash_attention=flash, kv_type=kv_types, threads=threads, ubatch_tokens=ubatches)


def _layouts(config: ModelConfig, context_length: int) -> tuple[Layout, ...]:
    needed, there_are = config.max_sequences * context_length, num_cells(config, context_length)
    if config.kv == "streams" and there_are < needed:
        raise LoadFailed(
            f"kv: streams needs kv_cells >= max_sequences x context = {needed}, but it is {there_are}; raise it, or"
            " lower the others"
        )
    if config.kv != "auto":
        return (config.kv,)
    return ("streams", "unified") if there_are >= needed else ("unified",)


def _distinct(*values: int) -> tuple[int, ...]:
    return tuple(dict.fromkeys(value for value in values if value > 0))


def context_options(
    settings: RuntimeSettings, model: Network, config: ModelConfig, *, context_length: int, num_pinned: int
) -> ContextOptions:
    """Sizes of the context that will serve.

    Raises:
        LoadFailed: llama.cpp has not so many sequence ids.
    """
    cells, num_ids = num_cells(config, context_length), config.max_sequences + num_pinned
    streams = settings.kv == "streams"
    limit = max_sequences(has_window=model.has_window, streams=streams)
    if num_ids > limit:
        raise LoadFailed(
            f"max_sequences and {num_pinned} pinned prefixes are {num_ids} but llama.cpp has {limit} sequence ids for"
            " this model; lower max_sequences"
        )
    if streams:
        cells += num_pinned * (cells // config.max_sequences)
    elif model.can_share_prefixes:
        num_ids += min(NUM_IDLE_IDS, limit - num_ids)
    return ContextOptions(
        num_cells=cells,
        max_sequences=num_ids,
        max_batch_tokens=config.batch_tokens,
        max_ubatch_tokens=settings.ubatch_tokens,
        num_threads=settings.threads,
        streams=streams,
        flash_attention=settings.flash_attention,
        kv_type=settings.kv_type,
    )
