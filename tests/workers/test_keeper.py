"""Loading, unloading and replacing scripted models, in real worker processes."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from server.config.script_section import ScriptRule
from server.config.server_section import Limits
from server.errors import ModelUnavailable, NoRoom
from server.types import Delta
from server.workers import keeper as keeper_module
from server.workers.client import WorkerClient
from server.workers.keeper import Keeper, MakeRoom
from server.workers.supervision_policy import SupervisionPolicy
from server.workers.supervisor import Supervisor
from tests.fakes.scripted import answer, ends_within, request, scripted, spec_factory, until, until_true

ENDLESS = ScriptRule(match="endless", text="word " * 10_000, delay_ms=5)
SHORT = ScriptRule(match="short", text="a b c d e f g h i j", delay_ms=20)
PLAIN = ScriptRule(text="one two three")
MakeSupervisor = Callable[..., Supervisor]


@pytest.fixture
async def make_supervisor() -> AsyncIterator[MakeSupervisor]:
    made: list[Supervisor] = []

    def make(make_room: MakeRoom | None = None, **policy: float) -> Supervisor:
        patience = SupervisionPolicy(**{"first_backoff_s": 0.01, **policy})  # type: ignore[arg-type]  # none is a count
        made.append(Supervisor(Limits(load_wait_s=20), patience, make_room=make_room))
        return made[-1]

    yield make
    for supervisor in made:
        await supervisor.stop()


async def ready(supervisor: Supervisor, *rules: ScriptRule) -> tuple[Keeper, WorkerClient]:
    config = scripted("actor", *rules)
    client = supervisor.add(config, spec_factory(config))
    supervisor.load("actor")
    await until("ready", client)
    return supervisor.keeper("actor"), client


async def test_unloading_ends_the_process_and_the_next_request_loads_again(make_supervisor: MakeSupervisor) -> None:
    keeper, client = await ready(make_supervisor())
    pid = keeper.pid
    assert pid is not None

    await keeper.unload()

    assert ends_within(pid, 0)
    assert (client.state, client.loads_on_demand, keeper.pid) == ("unloaded", True, None)
    assert await answer(client) == "one two three"
    assert (client.state, client.loads_on_demand) == ("ready", False)


async def test_running_requests_end_first_and_new_ones_wait_for_the_next_load(make_supervisor: MakeSupervisor) -> None:
    keeper, client = await ready(make_supervisor(), SHORT, PLAIN)
    first_pid = keeper.pid
    running = client.generate(request("short"))
    await anext(running)

    unloading = keeper.unload()
    late = asyncio.create_task(answer(client))
    said = "".join([event.text async for event in running if isinstance(event, Delta)])
    await unloading

    assert said == "a b c d e f g h i j"
    assert await late == "one two three"
    assert keeper.pid != first_pid


async def test_what_does_not_end_in_time_ends_with_an_error(make_supervisor: MakeSupervisor) -> None:
    keeper, client = await ready(make_supervisor(drain_s=0.1), ENDLESS, PLAIN)
    running = client.generate(request("endless"))
    await anext(running)

    await keeper.unload()

    with pytest.raises(ModelUnavailable, match="was stopped before this request was done"):
        async for _ in running:
            pass


async def test_a_stop_while_a_model_is_being_unloaded_leaves_nothing_behind(make_supervisor: MakeSupervisor) -> None:
    supervisor = make_supervisor()
    keeper, client = await ready(supervisor)
    pid = keeper.pid or 0
    unloading = keeper.unload()
    await asyncio.sleep(0.001)  # so that it waits for the worker's end

    await supervisor.stop()

    assert unloading.done()
    assert ends_within(pid, 0)
    assert (client.state, keeper.pid) == ("draining", None)


async def test_unloading_twice_is_unloading_once(make_supervisor: MakeSupervisor) -> None:
    keeper, client = await ready(make_supervisor())

    assert keeper.unload() is keeper.unload()
    await keeper.unload()

    assert client.state == "unloaded"


async def test_a_load_can_be_taken_back(make_supervisor: MakeSupervisor) -> None:
    supervisor = make_supervisor()
    client = supervisor.add(scripted(), spec_factory(scripted()))
    supervisor.load("actor")
    await until_true(lambda: supervisor.pid("actor") is not None)

    await supervisor.keeper("actor").unload()

    assert (client.state, supervisor.pid("actor")) == ("unloaded", None)


async def test_requests_that_wait_for_a_load_that_is_taken_back_have_another_one(
    make_supervisor: MakeSupervisor,
) -> None:
    """Unloading a model is never a fault for whoever asks it."""
    supervisor = make_supervisor()
    client = supervisor.add(scripted(), spec_factory(scripted()))
    waiting = asyncio.create_task(answer(client))
    await until_true(lambda: supervisor.pid("actor") is not None)
    first_pid = supervisor.pid("actor")

    await supervisor.keeper("actor").unload()

    assert await waiting == "one two three"
    assert supervisor.pid("actor") != first_pid


async def test_unloading_forgets_a_failure(make_supervisor: MakeSupervisor) -> None:
    deadly = ScriptRule(match="die", error={"code": "worker_crashed"})  # type: ignore[arg-type]  # as YAML has it
    keeper, client = await ready(make_supervisor(max_crashes=1, retry_failed_after_s=1000), deadly, PLAIN)
    with pytest.raises(ModelUnavailable):
        await answer(client, request("die"))
    await until("failed", client)

    await keeper.unload()

    assert await answer(client) == "one two three"


# ---- room


async def test_a_model_without_room_has_not_failed(make_supervisor: MakeSupervisor) -> None:
    is_full = True

    @asynccontextmanager
    async def room(_keeper: Keeper) -> AsyncIterator[str]:
        if is_full:
            raise NoRoom("needs 5.1 GiB, there is none")
        yield ""

    client = make_supervisor(room).add(scripted(), spec_factory(scripted()))
    with pytest.raises(NoRoom, match="needs 5"):
        await answer(client)
    assert client.state == "unloaded"

    is_full = False

    assert await answer(client) == "one two three"


async def test_room_is_held_from_before_the_worker_starts_until_it_is_gone(make_supervisor: MakeSupervisor) -> None:
    seen: list[tuple[str, int | None]] = []

    @asynccontextmanager
    async def room(keeper: Keeper) -> AsyncIterator[str]:
        seen.append(("taken", keeper.pid))
        try:
            yield ""
        finally:
            seen.append(("given back", keeper.pid))

    keeper, _ = await ready(make_supervisor(room))

    await keeper.unload()

    assert seen == [("taken", None), ("given back", None)]


async def test_a_worker_that_is_killed_while_it_loads_tells_of_memory(make_supervisor: MakeSupervisor) -> None:
    """So the kernel ends what takes too much; starting it again at once would only do the same again."""

    @asynccontextmanager
    async def room(_keeper: Keeper) -> AsyncIterator[str]:
        yield "it needs about 5.1 GiB, and 3.2 GiB were free"

    supervisor = make_supervisor(room)
    client = supervisor.add(scripted(), spec_factory(scripted()))
    neighbour = supervisor.add(scripted("neighbour"), spec_factory(scripted("neighbour")))
    supervisor.load("neighbour")
    await until("ready", neighbour)

    supervisor.load("actor")
    await until_true(lambda: supervisor.pid("actor") is not None)
    os.kill(supervisor.pid("actor") or 0, signal.SIGKILL)
    await until("failed", client)

    assert client.failure is not None
    assert client.failure.endswith("for want of memory: it needs about 5.1 GiB, and 3.2 GiB were free")
    assert neighbour.state == "ready"


# ---- leaving


async def test_one_keeper_takes_anothers_place_without_dropping_a_request(make_supervisor: MakeSupervisor) -> None:
    supervisor = make_supervisor()
    old, client = await ready(supervisor, SHORT)
    config = scripted("actor", ScriptRule(text="from the new one"))
    new = supervisor.hire(config, spec_factory(config))
    new.load()
    await until("ready", new.client)
    running = asyncio.create_task(answer(client, request("short")))
    await until_true(lambda: client.num_requests == 1)

    leaving = supervisor.retire(old, heir=new)
    supervisor.put(new)
    await asyncio.sleep(0)

    assert await answer(client) == "from the new one"  # whoever still holds the old client
    assert await running == "a b c d e f g h i j"
    await leaving
    assert old.pid is None
    assert supervisor.pid("actor") == new.pid


async def test_one_that_leaves_without_an_heir_serves_until_nothing_runs(make_supervisor: MakeSupervisor) -> None:
    supervisor = make_supervisor()
    keeper, client = await ready(supervisor, SHORT, PLAIN)
    running = asyncio.create_task(answer(client, request("short")))
    await until_true(lambda: client.num_requests == 1)

    leaving = supervisor.retire(keeper)
    found_it_before = await answer(client)
    await leaving

    assert (await running, found_it_before) == ("a b c d e f g h i j", "one two three")
    with pytest.raises(ModelUnavailable, match="draining"):
        await answer(client)


async def test_a_stop_ends_those_that_leave_and_those_that_come(make_supervisor: MakeSupervisor) -> None:
    supervisor = make_supervisor()
    old, client = await ready(supervisor, ENDLESS)
    new = supervisor.hire(scripted(), spec_factory(scripted()))
    new.load()
    await until("ready", new.client)
    running = client.generate(request("endless"))
    await anext(running)
    pids = [old.pid or 0, new.pid or 0]
    supervisor.retire(old)
    await asyncio.sleep(0)

    await supervisor.stop()

    assert all(ends_within(pid, 0) for pid in pids)
    with pytest.raises(ModelUnavailable):
        async for _ in running:
            pass


async def test_what_a_worker_logs_outlives_it(make_supervisor: MakeSupervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(keeper_module.MODULE_OF, ("chat", "script"), "tests.fakes.odd_worker")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    supervisor = make_supervisor(max_crashes=1)
    config = scripted("fails-to-load")
    client = supervisor.add(config, spec_factory(config))

    supervisor.load(config.id)
    await until("failed", client)

    texts = [line.text for line in supervisor.lines.after(0, model_id=config.id, limit=100)]
    assert any("RuntimeError: first line" in text for text in texts)
