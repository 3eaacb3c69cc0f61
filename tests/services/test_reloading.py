"""Another models.yaml under traffic: scripted models in real worker processes, and no request that is dropped."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from server.config.rag_section import RagModel, RagSettings
from server.config.schema import HearthConfig, ModelConfig
from server.config.script_section import ScriptRule
from server.config.server_section import Limits, ServerSettings
from server.device_needs import DeviceNeed, MemoryEstimate
from server.errors import ConfigError, InvalidRequest, ModelNotFound, ModelUnavailable
from server.models.footprints import Footprints
from server.models.memory_needs import MemoryNeeds
from server.models.registry import ModelEntry, ModelRegistry
from server.models.weights import WeightsStore
from server.services.reloading import GIVEN_UP, Reloading
from server.services.residency import Residency
from server.workers.client import WorkerClient
from server.workers.keeper import SpecFactory
from server.workers.messages import WorkerSpec
from server.workers.supervision_policy import SupervisionPolicy
from server.workers.supervisor import Supervisor
from tests.fakes.scripted import answer, request, scripted, spec_factory, until, until_true


def estimate(config: ModelConfig, _weights: Path | None) -> MemoryEstimate:
    """As many MiB as its context has tokens, 10 where that is not configured."""
    return MemoryEstimate(needs=(DeviceNeed(device="cpu", weights=(config.context or 10) << 20),))


def says(model_id: str, text: str, **values: Any) -> ModelConfig:
    return scripted(model_id, ScriptRule(text=text, delay_ms=5)).model_copy(update=values)


@dataclass
class Rig:
    """Everything that a reload touches."""

    folder: Path
    config: HearthConfig
    wanted: HearthConfig | ConfigError
    rag: list[RagSettings] = field(default_factory=list)
    allowed: frozenset[str] | None = None

    def __post_init__(self) -> None:
        store = WeightsStore(self.folder / "weights", self.folder / "cache")
        needs = MemoryNeeds(store, Footprints(self.folder / "prints"), estimate)
        self.residency = Residency(needs, budget_mb=1000)
        policy = SupervisionPolicy(first_backoff_s=0.01)
        self.supervisor = Supervisor(Limits(load_wait_s=20), policy, make_room=self.residency.room)
        self.registry = ModelRegistry(
            [ModelEntry(each, self.supervisor.add(each, spec_factory(each))) for each in self.config.models],
            allowed=lambda: self.allowed,
        )
        self.reloading = Reloading(
            self.config,
            read=self._read,
            registry=self.registry,
            supervisor=self.supervisor,
            residency=self.residency,
            spec_of=spec_factory,
            on_rag=self.rag.append,
        )

    def _read(self) -> HearthConfig:
        if isinstance(self.wanted, ConfigError):
            raise self.wanted
        return self.wanted

    def client(self, model_id: str) -> WorkerClient:
        return self.supervisor.keeper(model_id).client

    async def ask(self, name: str) -> str:
        """As a service does: find the model, then ask it."""
        model = self.registry.resolve(name).model
        assert isinstance(model, WorkerClient)
        return (await answer(model, request())).strip()

    async def loaded(self) -> None:
        for model in self.config.models:
            self.supervisor.load(model.id)
            await until("ready", self.client(model.id))


MakeRig = Callable[..., Rig]


@pytest.fixture
async def make_rig(tmp_path: Path) -> AsyncIterator[MakeRig]:
    made: list[Rig] = []

    def make(before: Sequence[ModelConfig], after: Sequence[ModelConfig] | ConfigError, **settings: Any) -> Rig:
        wanted = after if isinstance(after, ConfigError) else HearthConfig(models=tuple(after), **settings)
        made.append(Rig(tmp_path, HearthConfig(models=tuple(before)), wanted))
        return made[-1]

    yield make
    for rig in made:
        await rig.supervisor.stop()


async def test_what_changes_changes_and_the_rest_goes_on(make_rig: MakeRig) -> None:
    same, gone, other = says("same", "same"), says("gone", "gone"), says("other", "before")
    relabelled = says("labels", "labels")
    rig = make_rig(
        [same, gone, other, relabelled],
        [
            says("new", "new"),
            same,
            says("other", "after"),
            relabelled.model_copy(update={"aliases": ("alias",), "description": "x"}),
        ],
    )
    await rig.loaded()
    pids = [rig.supervisor.pid(name) for name in ("same", "labels")]

    report = await rig.reloading.reload()

    assert (report.added, report.removed, report.replaced) == (("new",), ("gone",), ["other"])
    assert (report.updated, report.unchanged, report.failed) == (("labels",), ("same",), {})
    assert [await rig.ask(name) for name in ("new", "same", "other", "alias")] == ["new", "same", "after", "labels"]
    assert [rig.supervisor.pid(name) for name in ("same", "labels")] == pids
    assert [entry.config.id for entry in rig.registry.entries] == ["new", "same", "other", "labels"]
    with pytest.raises(ModelNotFound):
        await rig.ask("gone")


async def test_models_that_whoever_reloads_may_not_ask_stay(make_rig: MakeRig) -> None:
    mine, other = says("mine", "before"), says("other", "other")
    rig = make_rig([mine, other], [says("mine", "after"), other])
    await rig.loaded()

    rig.allowed = frozenset({"mine"})
    report = await rig.reloading.reload()
    rig.allowed = None

    assert (report.replaced, report.unchanged, report.removed) == (["mine"], ("other",), ())
    assert [await rig.ask(name) for name in ("mine", "other")] == ["after", "other"]


async def test_a_server_that_is_stopping_does_not_reload(make_rig: MakeRig) -> None:
    rig = make_rig([says("m", "a")], [says("n", "b")])

    rig.reloading.close()

    with pytest.raises(ModelUnavailable, match="the server is stopping"):
        await rig.reloading.reload()
    assert [entry.config.id for entry in rig.registry.entries] == ["m"]


@pytest.mark.parametrize(  # room for both workers, and for one at a time
    ("budget_mb", "pinned"), [(1000, False), (15, False), (15, True)]
)
async def test_no_request_is_dropped_while_a_model_is_replaced(make_rig: MakeRig, budget_mb: int, pinned: bool) -> None:
    before, after = says("m", "a b c d", pinned=pinned), says("m", "e f g h", pinned=pinned)
    rig = make_rig([before], [after], server=ServerSettings(memory_budget_mb=budget_mb))
    await rig.loaded()
    rig.residency.budget_mb = budget_mb
    said: list[str] = []
    is_over = asyncio.Event()

    async def traffic() -> None:
        while not is_over.is_set():
            said.append(await rig.ask("m"))

    clients = [asyncio.create_task(traffic()) for _ in range(8)]
    await until_true(lambda: len(said) >= 20)
    report = await rig.reloading.reload()
    num_before = len(said)
    await until_true(lambda: len(said) >= num_before + 20)
    is_over.set()
    await asyncio.gather(*clients)  # raises what any of them got in place of an answer

    assert report.replaced == ["m"]
    assert set(said) == {"a b c d", "e f g h"}
    assert set(said[-8:]) == {"e f g h"}


async def test_a_model_that_cannot_be_loaded_leaves_the_old_one_serving(make_rig: MakeRig, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"<html>not found</html>")
    broken = ModelConfig(id="m", kind="chat", backend="llama_cpp", source=f"file:{tmp_path}/x.gguf", aliases=("n",))
    rig = make_rig([says("m", "still here")], [broken])
    rig.reloading._spec_of = lambda model: spec_factory(model, weights_path=str(tmp_path / "x.gguf"))
    await rig.loaded()
    pid = rig.supervisor.pid("m")

    report = await rig.reloading.reload()

    assert (report.replaced, report.kept, list(report.failed)) == ([], ["m"], ["m"])
    assert "is not a GGUF file" in report.failed["m"]
    assert await rig.ask("n") == "still here"  # its names are those of the file
    assert rig.supervisor.pid("m") == pid
    assert (await rig.reloading.reload()).kept == ["m"]  # it is tried again, as the file still says so


async def test_a_model_that_would_not_fit_even_alone_leaves_the_old_one_serving(make_rig: MakeRig) -> None:
    small = ServerSettings(memory_budget_mb=100)
    rig = make_rig([says("m", "still here")], [says("m", "too large", context=256)], server=small)
    await rig.loaded()
    pid = rig.supervisor.pid("m")

    report = await rig.reloading.reload()

    assert (report.replaced, report.kept, list(report.failed)) == ([], ["m"], ["m"])
    assert "'m' needs 256 MiB, but there is 100 MiB free" in report.failed["m"]
    assert await rig.ask("m") == "still here"
    assert rig.supervisor.pid("m") == pid


async def test_where_there_is_room_for_one_a_model_that_cannot_be_loaded_gives_way_to_the_old_one(
    make_rig: MakeRig, tmp_path: Path
) -> None:
    (tmp_path / "x.gguf").write_bytes(b"<html>not found</html>")
    broken = ModelConfig(id="m", kind="chat", backend="llama_cpp", source=f"file:{tmp_path}/x.gguf")
    rig = make_rig([says("m", "back again")], [broken], server=ServerSettings(memory_budget_mb=15))
    rig.reloading._spec_of = lambda model: spec_factory(model, weights_path=str(tmp_path / "x.gguf"))
    await rig.loaded()

    report = await rig.reloading.reload()

    assert (report.replaced, report.kept, list(report.failed)) == ([], ["m"], ["m"])
    assert "is not a GGUF file" in report.failed["m"]
    assert rig.client("m").state == "ready"
    assert await rig.ask("m") == "back again"


async def test_a_new_model_that_finds_no_room_is_reported(make_rig: MakeRig) -> None:
    small = ServerSettings(memory_budget_mb=100)
    rig = make_rig([says("m", "m")], [says("m", "m"), says("new", "new", context=256)], server=small)

    report = await rig.reloading.reload()

    assert (report.added, report.kept, rig.client("new").state) == (("new",), [], "unloaded")
    assert "'new' needs 256 MiB" in report.failed["new"]


async def test_a_new_model_that_cannot_be_loaded_is_reported(make_rig: MakeRig, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"<html>")
    broken = ModelConfig(id="new", kind="chat", backend="llama_cpp", source=f"file:{tmp_path}/x.gguf")
    rig = make_rig([says("m", "m")], [says("m", "m"), broken])
    rig.reloading._spec_of = lambda model: spec_factory(model, weights_path=str(tmp_path / "x.gguf"))

    report = await rig.reloading.reload()

    assert (report.added, list(report.failed), report.kept) == (("new",), ["new"], [])
    assert rig.client("new").state == "failed"


async def test_a_file_that_is_wrong_changes_nothing(make_rig: MakeRig) -> None:
    rig = make_rig([says("m", "m")], ConfigError("models.yaml:7: models.m.kind is 'chta'; expected chat"))
    await rig.loaded()

    with pytest.raises(InvalidRequest, match=r"^models\.yaml:7: models\.m\.kind is 'chta'") as refused:
        await rig.reloading.reload()

    assert refused.value.code == "invalid_config"
    assert await rig.ask("m") == "m"


async def test_a_model_that_is_not_loaded_is_not_loaded_to_be_replaced(make_rig: MakeRig) -> None:
    rig = make_rig([says("m", "a", lazy=True)], [says("m", "b", lazy=True)])

    report = await rig.reloading.reload()

    assert (report.replaced, rig.client("m").state) == (["m"], "unloaded")
    assert await rig.ask("m") == "b"


async def test_a_model_that_is_lazy_no_more_is_loaded(make_rig: MakeRig) -> None:
    rig = make_rig([says("m", "m", lazy=True)], [says("m", "m")])

    report = await rig.reloading.reload()

    assert (report.updated, rig.client("m").state) == (("m",), "ready")


async def test_settings_that_need_a_restart_are_named_and_those_that_do_not_are_in_force(make_rig: MakeRig) -> None:
    server = ServerSettings(port=9000, memory_budget_mb=500, model_ttl_s=60, limits=Limits(max_inputs=7))
    handbook = RagModel(id="handbook", chat_model="m", vector_stores=("manuals",))
    rag = RagSettings(models=(handbook,), index_memory_mb=77, min_relevance=0.5)
    rig = make_rig([says("m", "m")], [says("m", "m")], server=server, rag=rag)

    first, second = await rig.reloading.reload(), await rig.reloading.reload()

    assert first.needs_restart == ("rag.index_memory_mb", "server.limits.max_inputs", "server.port")
    assert second.needs_restart == first.needs_restart  # they are still not in force
    assert (rig.residency.budget_mb, rig.residency.default_ttl_s) == (500, 60)
    assert rig.registry.rag_model("handbook") == handbook
    assert rig.rag[-1].min_relevance == 0.5


async def test_reloads_take_turns(make_rig: MakeRig) -> None:
    rig = make_rig([says("m", "a")], [says("m", "b")])
    await rig.loaded()

    first, second = await asyncio.gather(rig.reloading.reload(), rig.reloading.reload())

    assert (first.replaced, second.replaced, second.unchanged) == (["m"], [], ("m",))


class Stuck:
    """Workers that do not get beyond their start before they may."""

    def __init__(self, rig: Rig) -> None:
        self.has_begun, self.may_go_on = threading.Event(), threading.Event()
        rig.reloading._spec_of = self._spec_of

    def _spec_of(self, model: ModelConfig) -> SpecFactory:
        def make_spec(endpoint: str) -> WorkerSpec:
            self.has_begun.set()
            self.may_go_on.wait(20)
            return spec_factory(model)(endpoint)

        return make_spec


async def test_a_wrong_reload_can_be_taken_back_while_it_loads(make_rig: MakeRig) -> None:
    right, wrong = says("m", "right"), says("m", "wrong")
    rig = make_rig([right], [wrong])
    await rig.loaded()
    stuck = Stuck(rig)
    first = asyncio.create_task(rig.reloading.reload())
    await until_true(stuck.has_begun.is_set)

    rig.wanted = HearthConfig(models=(right,))
    try:
        async with asyncio.timeout(10):
            second, taken_back = await rig.reloading.reload(), await first
    finally:
        stuck.may_go_on.set()

    assert (taken_back.kept, taken_back.failed, taken_back.replaced) == (["m"], {"m": GIVEN_UP}, [])
    assert second.unchanged == ("m",)
    assert await rig.ask("m") == "right"
    await until_true(lambda: len(rig.supervisor._hired) == 1)


async def test_the_same_file_again_does_not_end_a_reload_that_loads(make_rig: MakeRig) -> None:
    rig = make_rig([says("m", "a")], [says("m", "b")])
    await rig.loaded()
    stuck = Stuck(rig)
    both = [asyncio.create_task(rig.reloading.reload()) for _ in range(2)]
    await until_true(stuck.has_begun.is_set)

    stuck.may_go_on.set()
    first, second = await asyncio.gather(*both)

    assert (first.replaced, second.unchanged) == (["m"], ("m",))


async def test_a_reload_that_nobody_waits_for_goes_on(make_rig: MakeRig) -> None:
    rig = make_rig([says("m", "a")], [says("m", "b")])
    await rig.loaded()
    old, stuck = rig.supervisor.keeper("m"), Stuck(rig)
    reloading = asyncio.create_task(rig.reloading.reload())
    await until_true(stuck.has_begun.is_set)

    reloading.cancel()
    stuck.may_go_on.set()
    await until_true(lambda: rig.supervisor.keeper("m") is not old)

    assert await rig.ask("m") == "b"
    await until_true(lambda: len(rig.supervisor._hired) == 1)
