"""Puts another models.yaml in force while the server runs, without dropping a request.

The file is checked as a whole first: one that is wrong changes nothing. Models that did not change go on as they are.
Of one that did, the new worker loads while the old one serves, and takes over when it is ready; if it cannot be loaded,
the old one goes on. Where memory does not suffice for both, requests wait while the one makes room for the other; where
it would not suffice for the new one alone, the old one goes on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from server.config.changes import Changes, changes_between
from server.config.rag_section import RagSettings
from server.config.schema import HearthConfig, ModelConfig
from server.config.server_section import ServerSettings
from server.errors import ConfigError, InvalidRequest, ModelUnavailable
from server.models.registry import ModelEntry, ModelRegistry
from server.protocols import ServedModel
from server.services.residency import Residency
from server.workers.client import WorkerClient
from server.workers.keeper import Keeper, SpecFactory
from server.workers.supervisor import Supervisor

logger = logging.getLogger(__name__)

GIVEN_UP = "it was not loaded to the end: models.yaml was reloaded again, or the server is stopping"


@dataclass
class ReloadReport:
    """What a reload has done. Models go by their ids.

    Attributes:
        replaced: Another worker serves them, or will when they are asked for.
        updated: Names, descriptions, sampling defaults and the like changed; the worker is the same.
        failed: New or changed models that cannot be loaded, or find no room, and why.
        kept: Of those, the ones that go on as they were.
        needs_restart: Settings that changed in the file, and stay as they are until the server is started anew.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    replaced: list[str] = field(default_factory=list)
    updated: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    failed: dict[str, str] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    needs_restart: tuple[str, ...] = ()


class Reloading:
    """Brings the registry and the workers into line with models.yaml.

    Args:
        config: In force.
        read: Reads the file again, with the environment and flags of this server; called on a thread.
        spec_of: What a model's worker is to be told.
        on_rag: Told of the `rag` section, with every reload.
        offer: What the registry shall hold of a model that is configured so, over its client; default: the client.
    """

    def __init__(
        self,
        config: HearthConfig,
        *,
        read: Callable[[], HearthConfig],
        registry: ModelRegistry,
        supervisor: Supervisor,
        residency: Residency,
        spec_of: Callable[[ModelConfig], SpecFactory],
        on_rag: Callable[[RagSettings], None],
        offer: Callable[[ModelConfig, WorkerClient], ServedModel] = lambda _config, client: client,
    ) -> None:
        self._config = config
        self._wanted = config
        self._read = read
        self._registry = registry
        self._supervisor = supervisor
        self._residency = residency
        self._spec_of = spec_of
        self._on_rag = on_rag
        self._offer = offer
        self._is_closed = False
        self._reading = asyncio.Lock()  # so that what was read last is what is wanted
        self._one_at_a_time = asyncio.Lock()
        self._is_overtaken = asyncio.Event()
        self._turns: set[asyncio.Task[ReloadReport]] = set()

    async def reload(self) -> ReloadReport:
        """Read models.yaml again and put it in force; return when every model has got where it was to go.

        Cancelled, it goes on all the same. Called meanwhile, it waits for its turn; if the file is another one by then,
        the reload before it waits no longer for models that load.

        Raises:
            InvalidRequest: The file is wrong; nothing has changed. The message has a line for each problem.
            ModelUnavailable: The server is stopping.
        """
        await self._read_again()
        turn = asyncio.create_task(self._take_turn(), name="reload of models.yaml")
        self._turns.add(turn)
        turn.add_done_callback(self._turns.discard)
        return await asyncio.shield(turn)

    def close(self) -> None:
        """The server is stopping: refuse later reloads, and let one that goes on begin with no further model."""
        self._is_closed = True

    async def _read_again(self) -> None:
        async with self._reading:
            try:
                wanted = await asyncio.to_thread(self._read)
            except ConfigError as exc:
                logger.error("models.yaml is wrong and stays as it was", extra={"reason": exc.message})
                raise InvalidRequest(exc.message, code="invalid_config") from exc
            is_other = wanted != self._wanted
            if self._one_at_a_time.locked():
                logger.info("models.yaml was read while a reload runs", extra={"overtakes_it": is_other})
            if is_other:
                self._wanted = wanted
                self._is_overtaken.set()

    async def _take_turn(self) -> ReloadReport:
        async with self._one_at_a_time:
            if self._is_closed:
                raise ModelUnavailable("models.yaml is not reloaded: the server is stopping")
            self._is_overtaken.clear()
            report = await self._apply(self._wanted)
            logger.info("models.yaml reloaded", extra=asdict(report))
            return report

    async def _apply(self, wanted: HearthConfig) -> ReloadReport:
        served = {entry.config.id: entry.config for entry in self._registry.everything.entries}
        changes = changes_between(self._config, wanted, served)
        models = {model.id: model for model in wanted.models}
        report = ReloadReport(
            added=changes.added,
            removed=changes.removed,
            updated=changes.relabelled,
            unchanged=changes.unchanged,
            needs_restart=changes.needs_restart,
        )
        self._residency.budget_mb = wanted.server.memory_budget_mb
        self._residency.default_ttl_s = wanted.server.model_ttl_s
        leavers = [self._supervisor.keeper(model_id) for model_id in changes.removed]
        eager = [each for each in changes.relabelled if served[each].lazy and not models[each].lazy]
        newcomers = self._take_over(wanted, changes)
        for keeper in leavers:  # they left the registry just now
            self._supervisor.retire(keeper)
        loading = [self._supervisor.keeper(model_id) for model_id in eager]
        loading += [keeper for keeper in newcomers if not keeper.config.lazy]
        for keeper in loading:
            keeper.load()
        for model_id in changes.changed:
            if self._is_closed or self._is_overtaken.is_set():
                report.failed[model_id] = GIVEN_UP
                report.kept.append(model_id)
            else:
                await self._replace(models[model_id], report)
        for keeper in loading:
            await self._note_problem(keeper, report)
        return report

    def _take_over(self, wanted: HearthConfig, changes: Changes) -> list[Keeper]:
        """Put everything in force that takes no worker's end; return the keepers of new models."""
        newcomers = [
            self._supervisor.put(self._supervisor.hire(model, self._spec_of(model)))
            for model in wanted.models
            if model.id in changes.added
        ]
        entries = []
        for model in wanted.models:
            keeper = self._supervisor.keeper(model.id)
            if model.id in changes.changed:  # until the new worker is there; its names are the new ones
                labels = {key: getattr(model, key) for key in ("aliases", "description", "display", "prices")}
                keeper.config = keeper.config.model_copy(update=labels)
            else:
                keeper.config = model
            entries.append(self._entry(keeper))
        self._registry.replace(entries, wanted.rag.models)
        self._on_rag(wanted.rag)
        self._config = wanted.model_copy(
            update={"server": _in_force(self._config.server, wanted.server), "rag": _rag_in_force(self._config, wanted)}
        )
        return newcomers

    # ---- one model for another

    async def _replace(self, model: ModelConfig, report: ReloadReport) -> None:
        old, new = self._supervisor.keeper(model.id), self._supervisor.hire(model, self._spec_of(model))
        if old.client.state == "failed" or (old.client.state == "unloaded" and model.lazy):
            self._swap(old, new)  # nothing serves that could go on, or nothing is to be loaded
            if not model.lazy:
                new.load()
            report.replaced.append(model.id)
            await self._note_problem(new, report)
        elif problem := await self._load_instead(old, new):
            report.failed[model.id] = problem
            report.kept.append(model.id)
        else:
            report.replaced.append(model.id)

    async def _load_instead(self, old: Keeper, new: Keeper) -> str | None:
        """Load a model, and have it serve in place of the old one; say why the old one goes on, if it does."""
        if old.client.state != "unloaded":
            with self._residency.sparing(old):
                new.load()
                problem = await self._problem(new)
            if new.client.state == "ready":
                self._swap(old, new)
                return None
            if new.client.state != "unloaded":
                self._supervisor.retire(new)
                return problem or GIVEN_UP
        if objection := await self._residency.objection(new, without=old):
            self._supervisor.retire(new)
            return objection
        await asyncio.wait((self._swap(old, new),))
        new.load()
        problem = await self._problem(new)
        if problem and not self._is_closed:
            await self._bring_back(old.config, new)
        return problem

    async def _bring_back(self, config: ModelConfig, failed: Keeper) -> None:
        """Load a model as it was before, in place of what it became."""
        again = self._supervisor.hire(config, self._spec_of(config))
        self._swap(failed, again)
        again.load()
        await self._problem(again)

    def _swap(self, old: Keeper, new: Keeper) -> asyncio.Task[None]:
        """Put one keeper in another one's place; return the task that ends when that one is gone."""
        leaving = self._supervisor.retire(old, heir=new)
        self._supervisor.put(new)
        everything = self._registry.everything
        entries = [self._entry(new) if entry.config.id == new.config.id else entry for entry in everything.entries]
        self._registry.replace(entries, everything.rag_models)
        return leaving

    def _entry(self, keeper: Keeper) -> ModelEntry:
        return ModelEntry(keeper.config, self._offer(keeper.config, keeper.client))

    async def _note_problem(self, keeper: Keeper, report: ReloadReport) -> None:
        if problem := await self._problem(keeper):
            report.failed[keeper.config.id] = problem

    async def _problem(self, keeper: Keeper) -> str | None:
        """Wait until a model is loaded, if it is being loaded; say why it is not.

        Where another reload overtakes this one, it is not waited for.
        """
        client = keeper.client
        settling = asyncio.create_task(client.settled())
        overtaking = asyncio.create_task(self._is_overtaken.wait())
        await asyncio.wait((settling, overtaking), return_when=asyncio.FIRST_COMPLETED)
        settling.cancel()
        overtaking.cancel()
        if client.state == "unloaded":
            return client.waiting_for  # what it was refused with
        return client.failure if client.state == "failed" else None


def _in_force(old: ServerSettings, new: ServerSettings) -> ServerSettings:
    return old.model_copy(update={"memory_budget_mb": new.memory_budget_mb, "model_ttl_s": new.model_ttl_s})


def _rag_in_force(old: HearthConfig, new: HearthConfig) -> RagSettings:
    cold = {"parser": old.rag.parser, "index_memory_mb": old.rag.index_memory_mb}
    return new.rag.model_copy(update=cold)
