"""How a chat model is run: what models.yaml says; for the rest what was measured on this machine, else a rule.

`choose_runtime` is what a chat worker calls; `measure` is its slow part, and all that `hearth tune` does.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from server.bindings.cpu import read_cpu
from server.bindings.llama_context import ContextOptions, max_sequences
from server.bindings.llama_model import LlamaModel
from server.config.schema import KvType, ModelConfig
from server.errors import LoadFailed
from server.workers.messages import WorkerSpec
from server.workers.probe import Probe
from server.workers.tuning import Choices, Layout, RuntimeSettings, Search, Tuning
from server.workers.tuning_cache import open_cache

logger = logging.getLogger(__name__)

DEFAULT_MAX_CONTEXT = 8192
"""Tokens of a request when models.yaml says nothing: more costs memory that most do not need."""

NUM_IDLE_IDS = 64
"""Sequence ids for prefixes that are kept for later requests, besides those of running sequences."""

LOAD_BUDGET_S = 10.0
"""How long a search may take while a model loads: clients wait for it."""

_UBATCH_TOKENS = (512, 256, 1024, 2048)
"""llama.cpp's default first."""


@dataclass(frozen=True)
class RuntimeChoice:
    """Options of the context to make, and for people what was chosen and why."""

    options: ContextOptions
    details: dict[str, str]


def choose_runtime(
    model: LlamaModel,
    config: ModelConfig,
    spec: WorkerSpec,
    *,
    context_length: int,
    num_pinned: int,
    has_gpu_layers: bool,
) -> RuntimeChoice:
    """Decide how to run a model; where nothing is remembered, measure for a few seconds first.

    Args:
        num_pinned: Prefixes that are kept for good: each gets a sequence id (and in streams a part) of its own.

    Raises:
        LoadFailed: The configuration asks for streams but not for enough cells, or for too many sequences.
    """
    choices = _choices(config, spec, context_length=context_length, has_gpu_layers=has_gpu_layers)
    tuning, how = None, "rule"
    if not choices.is_one:
        tuning, how = _remembered_or_measured(
            model, config, spec, choices, context_length=context_length, has_gpu_layers=has_gpu_layers
        )
    settings = tuning.best if tuning else choices.rule
    options = _options(settings, model, config, context_length=context_length, num_pinned=num_pinned)
    details = {name: f"{value} ({_reason(name, config, tuning, how)})" for name, value in settings.describe().items()}
    if config.kv == "auto" and choices.kv == ("unified",):
        details["kv"] = f"unified (streams need kv_cells: {config.max_sequences * context_length})"
    return RuntimeChoice(options, details | {"batch_tokens": str(config.batch_tokens)})


def choose_context(configured: int | None, *, own: int) -> int:
    """Decide how many tokens one request may have: as configured, or what the model was made for, within reason.

    Raises:
        LoadFailed: More are configured than the model was made for.
    """
    if configured is not None and configured > own:
        raise LoadFailed(f"context is {configured} but the model was made for {own} tokens; lower context")
    return configured or min(own, DEFAULT_MAX_CONTEXT)


def measure(
    model: LlamaModel,
    config: ModelConfig,
    spec: WorkerSpec,
    *,
    context_length: int,
    has_gpu_layers: bool,
    budget_s: float,
) -> Tuning:
    """Search for the fastest way to run a model, and remember it where the spec says.

    Raises:
        LoadFailed: As `choose_runtime`, or nothing runs at all.
    """
    choices = _choices(config, spec, context_length=context_length, has_gpu_layers=has_gpu_layers)
    cache = open_cache(config, spec)
    if cache:
        cache.begin()
    probe = Probe(
        model,
        choices.rule,
        max_sequences=config.max_sequences,
        num_cells=_num_cells(config, context_length),
        context_length=context_length,
        batch_tokens=config.batch_tokens,
        budget_s=budget_s,
    )
    tuning = Search(choices, probe.measure, budget_s=budget_s, prompt_tokens=probe.prompt_tokens).run()
    if cache:
        earlier = cache.load()
        tuning = tuning.after(earlier) if earlier and choices.allow(earlier.best) else tuning
        cache.save(tuning)
    return tuning


# ---- what there is to choose


def _num_cells(config: ModelConfig, context_length: int) -> int:
    num_contexts = config.max_sequences if config.kv == "streams" else 2
    return max(config.kv_cells or num_contexts * context_length, context_length)


def _choices(config: ModelConfig, spec: WorkerSpec, *, context_length: int, has_gpu_layers: bool) -> Choices:
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
    cores = spec.num_threads
    threads = _distinct(cores, cores - 1, cores // 2) if config.threads is None else (cores,)
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
    needed, num_cells = config.max_sequences * context_length, _num_cells(config, context_length)
    if config.kv == "streams" and num_cells < needed:
        raise LoadFailed(
            f"kv: streams needs kv_cells >= max_sequences x context = {needed}, but it is {num_cells}; raise it, or"
            " lower the others"
        )
    if config.kv != "auto":
        return (config.kv,)
    return ("streams", "unified") if num_cells >= needed else ("unified",)


def _distinct(*values: int) -> tuple[int, ...]:
    return tuple(dict.fromkeys(value for value in values if value > 0))


# ---- what is chosen


def _remembered_or_measured(
    model: LlamaModel,
    config: ModelConfig,
    spec: WorkerSpec,
    choices: Choices,
    *,
    context_length: int,
    has_gpu_layers: bool,
) -> tuple[Tuning | None, str]:
    """Return what was found out, now or earlier. Only speed depends on it: whatever goes wrong, None will do."""
    try:
        cache = open_cache(config, spec)
        if cache is None:
            return None, "rule"
        remembered = cache.load()
        is_usable = remembered is not None and bool(remembered.trials) and choices.allow(remembered.best)
        if remembered and is_usable and remembered.is_settled:
            return remembered, "remembered"
        if not cache.may_measure():
            extra = {"model": config.id, "remedy": f"run `hearth tune {config.id}`"}
            logger.warning("measuring has not come to its end before; fixed rules are used", extra=extra)
            return None, "rule"
        logger.info("measuring how the model runs fastest", extra={"model": config.id})
        tuning = measure(
            model, config, spec, context_length=context_length, has_gpu_layers=has_gpu_layers, budget_s=LOAD_BUDGET_S
        )
        return tuning, "measured"
    except Exception:
        logger.warning("measuring failed; fixed rules are used", exc_info=True, extra={"model": config.id})
        return None, "rule"


def _reason(name: str, config: ModelConfig, tuning: Tuning | None, how: str) -> str:
    """Why a setting has its value: `configured`, `measured`, `remembered` or `rule`."""
    if getattr(config, name) not in (None, "auto"):
        return "configured"
    return how if tuning and tuning.has_compared(name) else "rule"


def _options(
    settings: RuntimeSettings, model: LlamaModel, config: ModelConfig, *, context_length: int, num_pinned: int
) -> ContextOptions:
    num_cells, num_ids = _num_cells(config, context_length), config.max_sequences + num_pinned
    streams = settings.kv == "streams"
    limit = max_sequences(model, streams=streams)
    if num_ids > limit:
        raise LoadFailed(
            f"max_sequences and {num_pinned} pinned prefixes are {num_ids} but llama.cpp has {limit} sequence ids for"
            " this model; lower max_sequences"
        )
    if streams:
        num_cells += num_pinned * (num_cells // config.max_sequences)
    elif model.can_share_prefixes:
        num_ids += min(NUM_IDLE_IDS, limit - num_ids)
    return ContextOptions(
        num_cells=num_cells,
        max_sequences=num_ids,
        max_batch_tokens=config.batch_tokens,
        max_ubatch_tokens=settings.ubatch_tokens,
        num_threads=settings.threads,
        streams=streams,
        flash_attention=settings.flash_attention,
        kv_type=settings.kv_type,
    )
