"""Which models are in memory: makes room for those that are asked for, and lets those go that nobody asks any more.

Knows what each model needs and holds (`models`), and has keepers load and unload them (`workers`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from server.config.schema import ModelConfig
from server.errors import NoRoom
from server.models.machine_memory import MachineMemory, read_machine_memory
from server.models.memory_needs import MemoryNeed, MemoryNeeds
from server.models.memory_plan import Memory, Resident, plan_room, refusal
from server.types import ModelState
from server.workers.keeper import Keeper
from server.workers.process_memory import ProcessMemory, measure_memory

logger = logging.getLogger(__name__)

LOOK_S = 1.0
"""How often is looked for models that nobody asks any more, and by those who wait for room whether they are still
waited for."""

MEASURE_S = 10.0
"""How often workers are measured."""


@dataclass
class _Holding:
    """What is known of a keeper whose model is in memory, or on its way.

    Attributes:
        need: As planned; from the first measuring on, the most that was ever measured.
        is_estimated: Nothing was ever measured.
        measured_at: On the monotonic clock; -inf before the first time.
    """

    need: Memory
    is_estimated: bool
    measured_at: float = float("-inf")

    def note(self, ram: int, *, now: float) -> None:
        self.need = Memory(ram if self.is_estimated else max(self.need.ram, ram), self.need.vram)
        self.is_estimated, self.measured_at = False, now


@dataclass(frozen=True)
class _Budget:
    """What all models together may take.

    Attributes:
        sure: At least; what is given to models.
        at_most: With what models may be taking or giving back just now, of which no measuring tells where it is.
    """

    sure: Memory
    at_most: Memory


class Residency:
    """Admits models to memory.

    Args:
        budget_mb: Memory for all models together; None: what the machine has to give, whenever it is asked.
        default_ttl_s: Of models that have no `ttl_s` of their own; 0: never.
        free_vram: Tells what is free on the GPUs now, on a thread; None: their memory is not looked after.

    Attributes:
        budget_mb, default_ttl_s: May be changed at any time.
    """

    def __init__(
        self,
        needs: MemoryNeeds,
        *,
        budget_mb: int | None = None,
        default_ttl_s: float = 0,
        free_vram: Callable[[], int] | None = None,
    ) -> None:
        self._needs = needs
        self.budget_mb = budget_mb
        self.default_ttl_s = default_ttl_s
        self._free_vram = free_vram
        self._held: dict[Keeper, _Holding] = {}
        self._spared: set[Keeper] = set()
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def room(self, keeper: Keeper) -> AsyncIterator[str]:
        """Wait for room for a model, unloading others if need be; it has that room until this is left.

        A model that would fit if busy ones ended is waited with for as long as somebody waits for it.

        Yields:
            What it needs and what there is, for people.

        Raises:
            NoRoom: It does not fit. The message has the numbers.
        """
        need = await asyncio.to_thread(self._needs.find, keeper.config)
        if need.problem:
            logger.warning("memory cannot be estimated", extra={"model": keeper.config.id, "reason": need.problem})
        keeper.client.expect_load(need.measured.load_s if need.measured else None)
        keeper.client.on_idle = self._changed.set
        try:
            free = await self._make_room(keeper, need)
            yield f"it needs about {need.memory}, and {free} were free"
        finally:
            keeper.client.waiting_for = None
            self._held.pop(keeper, None)
            self._changed.set()

    @contextmanager
    def sparing(self, keeper: Keeper) -> Iterator[None]:
        """Meanwhile, this model does not go in favour of another one."""
        self._spared.add(keeper)
        try:
            yield
        finally:
            self._spared.discard(keeper)
            self._changed.set()

    async def objection(self, keeper: Keeper, *, without: Keeper) -> str | None:
        """Say why a model would find no room now, even if another one had left; None if it would find some."""
        memory = self._planned(await asyncio.to_thread(self._needs.find, keeper.config))
        budget = await self._budget()
        residents = [self._resident(each) for each in self._held if each is not without]
        plan = plan_room(memory, budget.at_most, residents)
        return None if plan.outcome == "fits" else refusal(keeper.config.id, memory, plan)

    def ttl_s(self, config: ModelConfig) -> float:
        """After how long without a request a model is unloaded; 0: never."""
        if config.pinned:
            return 0
        return self.default_ttl_s if config.ttl_s is None else config.ttl_s

    async def keep_for_ever(self) -> None:
        """Unload models whose time is over, and measure the others."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                self.unload_idle()
                await self._measure()
            except Exception:  # whatever it is: the next look may do
                logger.exception("models in memory could not be looked after")

    def unload_idle(self) -> None:
        """Unload what nobody has asked for longer than it may stay."""
        for keeper in list(self._held):
            idle_s, ttl_s = keeper.client.idle_s, self.ttl_s(keeper.config)
            if ttl_s and idle_s is not None and idle_s >= ttl_s:
                logger.info("model unloaded: not used", extra={"model": keeper.config.id, "idle_s": round(idle_s)})
                keeper.unload()

    # ---- room

    async def _make_room(self, keeper: Keeper, need: MemoryNeed) -> Memory:
        """Return what was free before. From the moment of the decision on, the room is taken."""
        memory = self._planned(need)
        while True:
            self._changed.clear()
            budget = await self._budget()
            residents = {self._resident(each): each for each in self._held}
            plan = plan_room(memory, budget.sure, list(residents))
            if plan.outcome == "fits":
                self._held[keeper] = _Holding(memory, is_estimated=need.measured is None)
                keeper.client.waiting_for = None
                await self._evict([residents[each] for each in plan.evicted], keeper)
                return plan.free
            best = plan_room(memory, budget.at_most, list(residents))
            message = refusal(keeper.config.id, memory, best)
            if best.outcome == "never" or (best.outcome == "later" and keeper.client.num_requests == 0):
                raise NoRoom(message, may_pass=best.outcome == "later")
            keeper.client.waiting_for = message
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._changed.wait()

    def _planned(self, need: MemoryNeed) -> Memory:
        return need.memory if self._free_vram else Memory(need.memory.ram)

    def _resident(self, keeper: Keeper) -> Resident:
        client = keeper.client
        is_leaving = client.state == "draining"  # whoever needs its room waits for that
        is_busy = client.state != "ready" or client.num_requests > 0 or keeper in self._spared
        return Resident(
            keeper.config.id,
            self._held[keeper].need,
            last_used=float("-inf") if is_leaving else client.last_used,
            is_busy=not is_leaving and is_busy,
            is_pinned=not is_leaving and keeper.config.pinned and not keeper.is_retired,
        )

    async def _evict(self, keepers: Sequence[Keeper], newcomer: Keeper) -> None:
        """Have their memory freed, all at the same time: from now on no request finds them ready."""
        unloadings = [keeper.unload() for keeper in keepers]
        for keeper in keepers:
            logger.info("model evicted", extra={"model": keeper.config.id, "in_favour_of": newcomer.config.id})
        if unloadings:
            await asyncio.wait(unloadings)

    async def _budget(self) -> _Budget:
        while True:
            states = self._states()
            pids = [keeper.pid for keeper in states]
            ram = self.budget_mb << 20 if self.budget_mb is not None else await asyncio.to_thread(_ram_budget, pids)
            free_vram = await asyncio.to_thread(self._free_vram) if self._free_vram else 0
            if states == self._states():
                break  # else the memory of a model that came or went was counted twice, or not at all
        sure, in_motion = Memory(ram, free_vram), Memory()
        for keeper, state in states.items():
            need = self._held[keeper].need
            if state == "loading":  # has taken some of it, which is not free any more
                in_motion += Memory(0, need.vram)
            else:
                sure += Memory(0, need.vram)
            if state == "draining" and self.budget_mb is None:  # its process may be gone, and the memory not yet free
                in_motion += Memory(need.ram)
        return _Budget(sure, sure + in_motion)

    def _states(self) -> dict[Keeper, ModelState]:
        return {keeper: keeper.client.state for keeper in self._held}

    # ---- measuring

    async def _measure(self) -> None:
        """Measure the workers that are ready, and remember what their models take."""
        now = time.monotonic()
        due = [
            keeper
            for keeper, holding in self._held.items()
            if keeper.client.state == "ready" and now - holding.measured_at >= MEASURE_S
        ]
        for keeper in due:
            [found] = await asyncio.to_thread(_measure_all, [keeper.pid])
            if keeper.client.state != "ready" or not found.total or not (holding := self._held.get(keeper)):
                continue
            holding.note(found.total, now=now)
            keeper.client.memory_bytes = found.total
            load_s = keeper.client.load_took_s
            await asyncio.to_thread(self._needs.remember, keeper.config, memory_bytes=found.total, load_s=load_s)


def _ram_budget(pids: Sequence[int | None]) -> int:
    """What there is for models, where nothing is configured; the processes are those of models."""
    machine = read_machine_memory()
    # What files are mapped is available still, as the kernel counts it; the rest of what workers hold is not.
    return automatic_budget(machine, sum(each.private for each in _measure_all(pids)))


def automatic_budget(machine: MachineMemory, held_bytes: int = 0) -> int:
    """What models may take where nothing is configured, those included that hold so much already."""
    return max(0, machine.available + held_bytes - machine.headroom)


def _measure_all(pids: Sequence[int | None]) -> list[ProcessMemory]:
    return [measure_memory(pid) if pid is not None else ProcessMemory() for pid in pids]
