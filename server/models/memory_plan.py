"""Whether another model fits into memory, and which ones go to make room for it. Pure: measures and unloads nothing.

Who goes: models that nobody is asking, the least recently used first, and no more of them than needed. Who stays:
models that answer somebody, and pinned ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Outcome = Literal["fits", "later", "never"]


@dataclass(frozen=True)
class Memory:
    """Bytes of the machine's memory, and of its GPUs'."""

    ram: int = 0
    vram: int = 0

    def __add__(self, other: Memory) -> Memory:
        return Memory(self.ram + other.ram, self.vram + other.vram)

    def __sub__(self, other: Memory) -> Memory:
        return Memory(self.ram - other.ram, self.vram - other.vram)

    def fits_into(self, room: Memory) -> bool:
        """Whether there is room for it. What needs nothing of a kind fits, however little there is."""
        return (self.ram <= room.ram or self.ram <= 0) and (self.vram <= room.vram or self.vram <= 0)

    def __str__(self) -> str:
        if not self.vram:
            return gib(self.ram)
        return f"{gib(self.ram)} and {gib(self.vram)} on the GPU"


@dataclass(frozen=True, eq=False)
class Resident:
    """A model in memory, or on its way there. Compared by identity.

    Attributes:
        last_used: On any clock.
        is_busy: Somebody is being answered, or waits to be.
    """

    model_id: str
    memory: Memory
    last_used: float
    is_busy: bool = False
    is_pinned: bool = False

    @property
    def may_go(self) -> bool:
        return not self.is_busy and not self.is_pinned


@dataclass(frozen=True)
class Plan:
    """What becomes of a model that wants to be loaded.

    Attributes:
        outcome: `fits`, once `evicted` are gone; `later`, when some of `awaited` are no longer busy; `never`, while
            pinned models and the budget are what they are.
        evicted: Whom it takes, least recently used first; of a model that does not fit: all who may go.
        awaited: Those who may go but are busy.
        free: What is there without `evicted`.
    """

    outcome: Outcome
    evicted: tuple[Resident, ...]
    awaited: tuple[Resident, ...]
    free: Memory


def plan_room(need: Memory, budget: Memory, residents: Sequence[Resident]) -> Plan:
    """Decide who goes for a model that needs so much. `budget` is for all models together."""
    free = budget
    for resident in residents:
        free -= resident.memory
    idle = sorted((each for each in residents if each.may_go), key=lambda each: each.last_used)
    awaited = tuple(each for each in residents if each.is_busy and not each.is_pinned)
    evicted: list[Resident] = []
    while not need.fits_into(free) and len(evicted) < len(idle):
        evicted.append(idle[len(evicted)])
        free += evicted[-1].memory
    if not need.fits_into(free):
        most = free
        for resident in awaited:
            most += resident.memory
        outcome: Outcome = "later" if need.fits_into(most) else "never"
        return Plan(outcome, tuple(evicted), awaited, free)
    for spared in reversed(evicted.copy()):  # a large one that went last may have been enough
        if need.fits_into(free - spared.memory):
            evicted.remove(spared)
            free -= spared.memory
    return Plan("fits", tuple(evicted), awaited, free)


def refusal(model_id: str, need: Memory, plan: Plan) -> str:
    """Say with numbers why a model is not loaded yet, and what to do."""
    if plan.outcome == "fits":
        return f"model {model_id!r} needs {need}; whether there is so much is seen when others have loaded or left"
    gone = ", ".join(repr(each.model_id) for each in plan.evicted)
    there = f"{_not_negative(plan.free)} free" + (f" after evicting {gone}" if gone else "")
    text = f"model {model_id!r} needs {need}, but there is {there}"
    if plan.outcome == "later":
        busy = ", ".join(repr(each.model_id) for each in plan.awaited)
        return f"{text}, and {busy} cannot go while they are asked; try again later"
    return f"{text}; lower its context or kv_cells, unpin a model, or raise server.memory_budget_mb"


def _not_negative(memory: Memory) -> Memory:
    return Memory(max(0, memory.ram), max(0, memory.vram))


def gib(size_bytes: int) -> str:
    """As people write it: 5.1 GiB, 812 MiB."""
    if size_bytes >= 1 << 30:
        return f"{size_bytes / (1 << 30):.1f} GiB"
    return f"{size_bytes / (1 << 20):.0f} MiB"
