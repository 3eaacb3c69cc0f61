"""How a chat model is run: what models.yaml says; for the rest what was measured on this machine, else a rule.

`choose_runtime` is what a chat worker calls; `measure` is its slow part, and all that `hearth tune` does.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from server.bindings.context_options import ContextOptions
from server.bindings.llama_model import LlamaModel
from server.config.schema import ModelConfig
from server.workers.context_choice import context_options, num_cells, possible_choices
from server.workers.messages import WorkerSpec
from server.workers.probe import Probe
from server.workers.tuning import Choices, Search, Tuning
from server.workers.tuning_cache import open_cache

logger = logging.getLogger(__name__)

LOAD_BUDGET_S = 10.0
"""How long a search may take while a model loads: clients wait for it."""


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
    choices = possible_choices(
        config, num_threads=spec.num_threads, context_length=context_length, has_gpu_layers=has_gpu_layers
    )
    tuning, how = None, "rule"
    if not choices.is_one:
        tuning, how = _remembered_or_measured(
            model, config, spec, choices, context_length=context_length, has_gpu_layers=has_gpu_layers
        )
    settings = tuning.best if tuning else choices.rule
    options = context_options(settings, model, config, context_length=context_length, num_pinned=num_pinned)
    details = {name: f"{value} ({_reason(name, config, tuning, how)})" for name, value in settings.describe().items()}
    if config.kv == "auto" and choices.kv == ("unified",):
        details["kv"] = f"unified (streams need kv_cells: {config.max_sequences * context_length})"
    return RuntimeChoice(options, details | {"batch_tokens": str(config.batch_tokens)})


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
    choices = possible_choices(
        config, num_threads=spec.num_threads, context_length=context_length, has_gpu_layers=has_gpu_layers
    )
    cache = open_cache(config, spec)
    if cache:
        cache.begin()
    probe = Probe(
        model,
        choices.rule,
        max_sequences=config.max_sequences,
        num_cells=num_cells(config, context_length),
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
