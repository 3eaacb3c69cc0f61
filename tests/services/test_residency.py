"""Who is in memory: room, eviction, time to live, with keepers that start no process."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.config.schema import ModelConfig
from server.config.server_section import Limits
from server.device_needs import DeviceNeed, MemoryEstimate
from server.errors import NoRoom
from server.models.footprints import Footprints
from server.models.machine_memory import MachineMemory
from server.models.memory_needs import MemoryNeeds
from server.models.weights import WeightsStore
from server.services import residency as module
from server.services.residency import Residency, automatic_budget
from server.types import ModelFacts
from server.workers.client import WorkerClient
from server.workers.keeper import Keeper
from server.workers.process_memory import ProcessMemory
from tests.fakes.scripted import scripted

MIB = 1 << 20


class FakeKeeper:
    """Takes room and is ready as soon as it may; frees its memory when it is told to, and may."""

    def __init__(self, residency: Residency, config: ModelConfig) -> None:
        self.config = config
        self.client = WorkerClient(config, Limits(), request_load=lambda: None)
        self.pid: int | None = None
        self.is_retired = False
        self.may_be_ready = asyncio.Event()
        self.may_be_ready.set()
        self.may_end = asyncio.Event()
        self.may_end.set()
        self._residency = residency
        self._over = asyncio.Event()
        self._requests: list[ExitStack] = []
        self._unloading: asyncio.Task[None] | None = None
        self.living: asyncio.Task[None] | None = None

    async def load(self) -> None:
        """Return when the model is ready; raise what its load was refused with."""
        self.client.begin_load()
        ready = asyncio.Event()
        self.living = asyncio.create_task(self._live(ready))
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait((self.living, waiting), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if self.living.done():
            self.client.set_state("unloaded")
            self.living.result()

    async def _live(self, ready: asyncio.Event) -> None:
        self._over.clear()
        async with self._residency.room(cast(Keeper, self)):
            self.client.note_room()
            await self.may_be_ready.wait()
            self.client.attach(cast(Any, None), ModelFacts(context_length=1))
            self.pid = os.getpid()
            ready.set()
            await self._over.wait()

    def unload(self) -> asyncio.Task[None]:
        if self._unloading is None or self._unloading.done():
            self.client.set_state("draining")
            self._unloading = asyncio.create_task(self._unload())
        return self._unloading

    async def _unload(self) -> None:
        await self.may_end.wait()
        self._over.set()
        assert self.living is not None
        await self.living
        self.pid = None
        self.client.set_state("unloaded")

    def ask(self) -> None:
        request = ExitStack()
        request.enter_context(self.client._admitted(0))
        self._requests.append(request)

    def answer(self) -> None:
        self._requests.pop().close()


@dataclass
class Rig:
    """A residency with a budget, and keepers of models whose sizes in MiB are their estimates."""

    folder: Path
    budget_mb: int | None = 100
    ttl_s: float = 0
    sizes: dict[str, int] = field(default_factory=dict)
    vram: dict[str, int] = field(default_factory=dict)
    free_vram: Callable[[], int] | None = None

    def __post_init__(self) -> None:
        store = WeightsStore(self.folder / "weights", self.folder / "cache")
        needs = MemoryNeeds(store, Footprints(self.folder / "footprints"), self._estimate)
        self.residency = Residency(needs, budget_mb=self.budget_mb, default_ttl_s=self.ttl_s, free_vram=self.free_vram)

    def keeper(self, name: str, size_mb: int, **values: Any) -> FakeKeeper:
        self.sizes[name] = size_mb
        return FakeKeeper(self.residency, scripted(name).model_copy(update=values))

    def _estimate(self, config: ModelConfig, _weights: Path | None) -> MemoryEstimate:
        on_gpu = DeviceNeed(device="cuda:0", weights=self.vram.get(config.id, 0) * MIB)
        return MemoryEstimate(needs=(DeviceNeed(device="cpu", weights=self.sizes[config.id] * MIB), on_gpu))


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    yield Rig(tmp_path)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()


async def test_the_least_recently_used_goes_for_a_newcomer(rig: Rig) -> None:
    old, new, third = rig.keeper("old", 40), rig.keeper("new", 40), rig.keeper("third", 50)
    await old.load()
    await new.load()
    old.client.last_used, new.client.last_used = 1, 2

    await third.load()

    assert [each.client.state for each in (old, new, third)] == ["unloaded", "ready", "ready"]


async def test_a_newcomer_waits_until_the_memory_of_whom_it_evicts_is_free(rig: Rig) -> None:
    old, new = rig.keeper("old", 60), rig.keeper("new", 60)
    await old.load()
    old.may_end.clear()

    loading = asyncio.create_task(new.load())
    await until(lambda: old.client.state == "draining")
    assert new.client.state == "loading"
    old.may_end.set()
    await loading

    assert (old.client.state, new.client.state) == ("unloaded", "ready")


async def test_a_model_that_never_fits_is_refused_with_numbers_and_evicts_nobody(rig: Rig) -> None:
    resident, giant = rig.keeper("resident", 40), rig.keeper("giant", 120)
    await resident.load()
    giant.ask()

    with pytest.raises(NoRoom, match="'giant' needs 120 MiB, but there is 100 MiB free after evicting 'resident'"):
        await giant.load()

    assert resident.client.state == "ready"


async def test_pinned_models_stay(rig: Rig) -> None:
    pinned, other = rig.keeper("pinned", 60, pinned=True), rig.keeper("other", 60)
    await pinned.load()
    other.ask()

    with pytest.raises(NoRoom, match="unpin a model"):
        await other.load()

    assert pinned.client.state == "ready"


async def test_a_request_waits_until_a_busy_model_is_idle(rig: Rig) -> None:
    busy, wanted = rig.keeper("busy", 60), rig.keeper("wanted", 60)
    await busy.load()
    busy.ask()
    wanted.ask()

    loading = asyncio.create_task(wanted.load())
    await until(lambda: wanted.client.waiting_for is not None)
    assert "'busy' cannot go while they are asked" in (wanted.client.waiting_for or "")
    assert busy.client.state == "ready"
    busy.answer()
    await loading

    assert (busy.client.state, wanted.client.waiting_for) == ("unloaded", None)


async def test_nobody_waits_for_room_for_a_model_that_nobody_waits_for(rig: Rig) -> None:
    """An operator, or the start of the server, is told at once."""
    busy, wanted = rig.keeper("busy", 60), rig.keeper("wanted", 60)
    await busy.load()
    busy.ask()

    with pytest.raises(NoRoom, match="try again later"):
        await wanted.load()


async def test_two_newcomers_are_not_given_the_same_room(rig: Rig) -> None:
    first, second = rig.keeper("first", 60), rig.keeper("second", 60)
    first.ask()

    outcomes = await asyncio.gather(first.load(), second.load(), return_exceptions=True)

    assert outcomes[0] is None
    assert isinstance(outcomes[1], NoRoom)


async def test_idle_models_go_when_their_time_is_over_and_pinned_ones_never(tmp_path: Path) -> None:
    rig = Rig(tmp_path, ttl_s=50)
    plain, busy, fresh = rig.keeper("plain", 1), rig.keeper("busy", 1), rig.keeper("fresh", 1)
    own, never = rig.keeper("own", 1, ttl_s=1000.0), rig.keeper("never", 1, ttl_s=0.0)
    pinned = rig.keeper("pinned", 1, pinned=True)
    for keeper in (plain, own, pinned, never, busy, fresh):
        await keeper.load()
        keeper.client.last_used -= 100
    busy.ask()
    fresh.client.last_used += 100

    rig.residency.unload_idle()
    await until(lambda: plain.client.state == "unloaded")

    assert [each.client.state for each in (own, pinned, never, busy, fresh)] == ["ready"] * 5


async def test_what_a_worker_takes_is_measured_and_remembered(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.01)
    keeper = rig.keeper("m", 90)
    await keeper.load()
    looking = asyncio.create_task(rig.residency.keep_for_ever())

    await until(lambda: bool(list((rig.folder / "footprints").glob("*.json"))))
    looking.cancel()

    assert keeper.client.memory_bytes is not None
    rig.residency.budget_mb = 1_000_000
    again = rig.keeper("m", 90)
    async with rig.residency.room(cast(Keeper, again)) as memory:  # this very process, as it happens
        assert "it needs about 90 MiB" not in memory


async def test_without_a_configured_budget_it_is_what_the_machine_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = MachineMemory(total=4 << 30, available=(256 + 10) * MIB)
    monkeypatch.setattr(module, "read_machine_memory", lambda: machine)
    rig = Rig(tmp_path, budget_mb=None)

    with pytest.raises(NoRoom, match="needs 11 MiB"):
        await rig.keeper("large", 11).load()
    await rig.keeper("small", 10).load()


async def test_the_memory_of_gpus_is_looked_after_where_somebody_tells_of_it(tmp_path: Path) -> None:
    """Of 10 MiB, what is free falls by what models take; without GPUs, estimates of them are nobody's business."""
    taken = 0
    rig = Rig(tmp_path, vram={"a": 6, "b": 6}, free_vram=lambda: (10 - taken) * MIB)
    first, second = rig.keeper("a", 1), rig.keeper("b", 1)
    await first.load()
    taken = 6

    await second.load()

    assert (first.client.state, second.client.state) == ("unloaded", "ready")
    blind = Rig(tmp_path, vram={"c": 600})
    await blind.keeper("c", 1).load()


@pytest.mark.parametrize("size_mb", [3, 8])  # for an operator, beside the other one; for a request, in its place
async def test_what_a_model_takes_of_a_gpu_while_it_loads_is_not_counted_twice(tmp_path: Path, size_mb: int) -> None:
    """It has taken all it needs, and may as well have taken nothing: who comes waits until that is seen."""
    free_mb = 10
    rig = Rig(tmp_path, vram={"first": 6, "second": size_mb}, free_vram=lambda: free_mb * MIB)
    first, second = rig.keeper("first", 1), rig.keeper("second", 1)
    first.may_be_ready.clear()
    loading = [asyncio.create_task(first.load())]
    await until(lambda: first.client._has_room)
    free_mb = 4
    if size_mb == 8:
        second.ask()

    loading.append(asyncio.create_task(second.load()))
    await until(lambda: second.client.waiting_for is not None)
    first.may_be_ready.set()
    await asyncio.gather(*loading)

    assert second.client.state == "ready"
    assert first.client.state == ("ready" if size_mb == 3 else "unloaded")


async def test_a_model_that_leaves_while_memory_is_measured_is_not_lost_sight_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is free was read before its process ended, and what processes hold afterwards."""
    rig, loop = Rig(tmp_path, budget_mb=None), asyncio.get_running_loop()
    old, new = rig.keeper("old", 50), rig.keeper("new", 60)

    def read() -> MachineMemory:
        seen = machine_with(10 if old.pid else 70)
        if old.client.state == "draining":
            loop.call_soon_threadsafe(old.may_end.set)
            while old.client.state == "draining":
                time.sleep(0.001)
        return seen

    monkeypatch.setattr(module, "read_machine_memory", lambda: machine_with(70))
    await old.load()
    old.may_end.clear()
    old.unload()
    monkeypatch.setattr(module, "read_machine_memory", read)
    monkeypatch.setattr(module, "measure_memory", lambda _pid: ProcessMemory(total=60 * MIB, private=60 * MIB))

    await new.load()

    assert (old.client.state, new.client.state) == ("unloaded", "ready")


async def test_a_process_that_ends_holds_nothing_before_its_memory_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(tmp_path, budget_mb=None)
    old, new = rig.keeper("old", 50), rig.keeper("new", 60)
    monkeypatch.setattr(module, "measure_memory", lambda _pid: ProcessMemory())
    monkeypatch.setattr(
        module, "read_machine_memory", lambda: machine_with(10 if old.client.state == "draining" else 70)
    )
    await old.load()
    old.may_end.clear()
    old.unload()
    new.ask()

    loading = asyncio.create_task(new.load())
    await until(lambda: new.client.waiting_for is not None)
    old.may_end.set()
    await loading

    assert new.client.state == "ready"


async def test_whether_a_model_would_fit_if_another_one_left_is_told_without_touching_anybody(rig: Rig) -> None:
    old, busy = rig.keeper("old", 50, pinned=True), rig.keeper("busy", 30)
    small, large = rig.keeper("small", 70), rig.keeper("large", 80)
    for keeper in (old, busy):
        await keeper.load()
    busy.ask()

    objections = [
        await rig.residency.objection(cast(Keeper, each), without=cast(Keeper, old)) for each in (small, large)
    ]

    assert objections[0] is None
    assert "'large' needs 80 MiB, but there is 70 MiB free, and 'busy' cannot go" in (objections[1] or "")
    assert [each.client.state for each in (old, busy)] == ["ready", "ready"]


async def test_who_is_spared_stays_although_idle(rig: Rig) -> None:
    spared, other = rig.keeper("spared", 60), rig.keeper("other", 60)
    await spared.load()

    with rig.residency.sparing(cast(Keeper, spared)), pytest.raises(NoRoom):
        await other.load()
    await other.load()

    assert (spared.client.state, other.client.state) == ("unloaded", "ready")


def machine_with(free_mb: int) -> MachineMemory:
    """A machine that has so much to give to models."""
    return MachineMemory(total=4 << 30, available=(256 + free_mb) * MIB)


def test_what_workers_hold_already_belongs_to_the_budget() -> None:
    machine = MachineMemory(total=4 << 30, available=1 << 30)

    assert automatic_budget(machine, 100) == (1 << 30) - machine.headroom + 100
    assert automatic_budget(MachineMemory(4 << 30, 1)) == 0


# ---- against a twin

operations = st.lists(
    st.tuples(st.sampled_from(("ask", "answer", "unload")), st.integers(0, 5)), min_size=5, max_size=40
)


@given(
    sizes=st.lists(st.integers(1, 60), min_size=2, max_size=6),
    pinned=st.sets(st.integers(0, 5), max_size=2),
    steps=operations,
)
def test_whatever_comes_memory_suffices_and_the_right_ones_are_there(
    sizes: list[int], pinned: set[int], steps: list[tuple[str, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The twin is a list of names, the least recently used first."""
    asyncio.run(_play(sizes, pinned, steps, tmp_path_factory.mktemp("residency")))


async def _play(sizes: list[int], pinned: set[int], steps: list[tuple[str, int]], folder: Path) -> None:
    rig = Rig(folder)
    keepers = [rig.keeper(f"m{i}", size, pinned=i in pinned) for i, size in enumerate(sizes)]
    there: list[int] = []
    asked: dict[int, int] = dict.fromkeys(range(len(sizes)), 0)
    clock = 0.0
    for action, number in steps:
        index, clock = number % len(sizes), clock + 1
        keeper = keepers[index]
        if action == "ask":
            fits = await _outcome(keeper.load) if index not in there else True
            expected = _twin_admits(there, index, sizes, {i for i in there if i in pinned or asked[i]})
            assert fits == (expected is not None)
            if expected is not None:
                there = [*(i for i in expected if i != index), index]
                keeper.ask()
                asked[index] += 1
                keeper.client.last_used = clock
        elif action == "answer" and asked[index]:
            keeper.answer()
            asked[index] -= 1
            keeper.client.last_used = clock
            there = [*(i for i in there if i != index), index]
        elif action == "unload" and index in there and not asked[index]:
            await keeper.unload()
            there.remove(index)
        assert {i for i, each in enumerate(keepers) if each.client.state == "ready"} == set(there)
        assert sum(sizes[i] for i in there) <= 100
    for i in there:
        await keepers[i].unload()


def _twin_admits(there: list[int], newcomer: int, sizes: list[int], staying: set[int]) -> list[int] | None:
    """Who is there afterwards; None if there is no room."""
    if newcomer in there:
        return there
    left = list(there)
    gone = []
    for index in there:
        if sum(sizes[i] for i in left) + sizes[newcomer] <= 100:
            break
        if index not in staying:
            left.remove(index)
            gone.append(index)
    if sum(sizes[i] for i in left) + sizes[newcomer] > 100:
        return None
    for index in reversed(gone):
        if sum(sizes[i] for i in left) + sizes[index] + sizes[newcomer] <= 100:
            left.append(index)
    return [*(i for i in there if i in left), newcomer]


async def _outcome(load: Callable[[], Awaitable[None]]) -> bool:
    try:
        await load()
    except NoRoom:
        return False
    return True


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # states have no event to wait for
            await asyncio.sleep(0.005)
