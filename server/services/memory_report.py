"""What `hearth plan` tells: what each model of models.yaml needs of memory, what fits, and what would make it fit.

Needs no server, and loads nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from server.config.schema import HearthConfig, ModelConfig
from server.device_needs import MemoryEstimate
from server.models.memory_needs import MemoryNeed, MemoryNeeds
from server.models.memory_plan import Memory, Resident, gib, plan_room
from server.models.memory_remedies import find_remedies


@dataclass(frozen=True)
class PlannedModel:
    """One model of the plan.

    Attributes:
        fits: Whether it can be loaded when nobody asks the others; True where nothing is known of its need.
        evicts: Ids of those that go when it is loaded after all others, least recently used first.
        verdict: The same for people, with what would make it fit.
    """

    config: ModelConfig
    need: MemoryNeed
    fits: bool
    evicts: tuple[str, ...]
    verdict: str


@dataclass(frozen=True)
class MemoryReport:
    """The whole plan. `budget_bytes` is for all models together."""

    budget_bytes: int
    models: tuple[PlannedModel, ...]


def report_memory(config: HearthConfig, needs: MemoryNeeds, *, budget_bytes: int) -> MemoryReport:
    """Plan as if models were loaded in the order of models.yaml: first those that load at start, then the lazy ones.

    The machine's memory alone counts.
    """
    residents: list[Resident] = []
    planned: dict[str, PlannedModel] = {}
    for model in sorted(config.models, key=lambda model: model.lazy):
        need = needs.find(model)
        ram = Memory(need.memory.ram)
        plan = plan_room(ram, Memory(budget_bytes), residents)
        if plan.outcome == "fits":
            evicts = tuple(each.model_id for each in plan.evicted)
            residents = [each for each in residents if each not in plan.evicted]
            residents.append(Resident(model.id, ram, len(planned), is_pinned=model.pinned))
            verdict = _what_fits(model, need, evicts)
        else:
            evicts = ()
            room_bytes = budget_bytes - sum(each.memory.ram for each in residents if each.is_pinned)
            verdict = _what_does_not(model, room_bytes, lambda smaller: needs.find(smaller).estimate)
        planned[model.id] = PlannedModel(model, need, plan.outcome == "fits", evicts, verdict)
    return MemoryReport(budget_bytes, tuple(planned[model.id] for model in config.models))


def _what_fits(model: ModelConfig, need: MemoryNeed, evicts: Sequence[str]) -> str:
    if need.estimate is None and need.measured is None:
        return f"not known: {need.problem}" if need.problem else f"not known; run `hearth pull {model.id}`"
    return f"evicts {', '.join(evicts)}" if evicts else "fits"


def _what_does_not(
    model: ModelConfig, room_bytes: int, estimate: Callable[[ModelConfig], MemoryEstimate | None]
) -> str:
    text = f"does not fit into {gib(max(0, room_bytes))}"
    ways = find_remedies(model, estimate, room_bytes=room_bytes)
    return f"{text}; would with {' or '.join(ways)}" if ways else text
