"""Owns the keepers of all models, and what they share: the ZeroMQ context and the folder of the sockets."""

from __future__ import annotations

import asyncio

import zmq

from server.config.schema import ModelConfig
from server.config.server_section import Limits
from server.telemetry.metrics import ModelReading
from server.workers.client import WorkerClient
from server.workers.cpu_split import CpuSplit
from server.workers.keeper import Keeper, MakeRoom, SpecFactory
from server.workers.recent_lines import RecentLines
from server.workers.socket_folder import SocketFolder
from server.workers.supervision_policy import SupervisionPolicy


class Supervisor:
    """Runs the workers of all models. One task per model; everything on the API process's event loop.

    Args:
        bulk_share: See `CpuSplit`.
        make_room: Called before a model is loaded; None: there is room for all.

    Attributes:
        lines: What the workers have logged lately.
    """

    def __init__(
        self,
        limits: Limits,
        policy: SupervisionPolicy | None = None,
        *,
        bulk_share: float = 1.0,
        make_room: MakeRoom | None = None,
    ) -> None:
        self._limits = limits
        self._cpu_split = CpuSplit(bulk_share)
        self._policy = policy or SupervisionPolicy()
        self._make_room = make_room
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._folder = SocketFolder()
        self._hired: set[Keeper] = set()
        self._keepers: dict[str, Keeper] = {}  # in care, by model; the others of the hired come or go
        self._leaving: set[asyncio.Task[None]] = set()
        self._stopping: asyncio.Task[None] | None = None
        self.lines = RecentLines()

    def add(self, config: ModelConfig, make_spec: SpecFactory) -> WorkerClient:
        """Take a model into care; it stays `unloaded` until `load`, or until a request needs it."""
        return self.put(self.hire(config, make_spec)).client

    def hire(self, config: ModelConfig, make_spec: SpecFactory) -> Keeper:
        """Make a keeper beside the one that the model may have: to be put in its place, or dismissed."""
        keeper = Keeper(
            config,
            limits=self._limits,
            policy=self._policy,
            make_spec=make_spec,
            context=self._context,
            folder=self._folder.path,
            cpu_split=self._cpu_split,
            make_room=self._make_room,
            lines=self.lines,
        )
        self._hired.add(keeper)
        return keeper

    def put(self, keeper: Keeper) -> Keeper:
        """Take a keeper into care, in place of another one of the same model if there is one."""
        self._keepers[keeper.config.id] = keeper
        return keeper

    def retire(self, keeper: Keeper, heir: Keeper | None = None) -> asyncio.Task[None]:
        """Let a keeper leave without dropping a request, see `Keeper.retire`; the task ends when it is gone."""
        if self._keepers.get(keeper.config.id) is keeper:
            del self._keepers[keeper.config.id]
        leaving = asyncio.create_task(self._retire(keeper, heir), name=f"{keeper.config.id} leaves")
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)
        return leaving

    async def _retire(self, keeper: Keeper, heir: Keeper | None) -> None:
        await keeper.retire(heir.client if heir else None)
        self._hired.discard(keeper)

    def keeper(self, model_id: str) -> Keeper:
        return self._keepers[model_id]

    def load(self, model_id: str) -> None:
        """Start loading a model; returns at once. Does nothing if it is loading or loaded, or has failed just now."""
        self._keepers[model_id].load()

    def pid(self, model_id: str) -> int | None:
        """Process id of the model's worker, if one runs."""
        return self._keepers[model_id].pid

    def readings(self) -> tuple[ModelReading, ...]:
        """All models and their workers as they are now. May be called on any thread."""
        return tuple(keeper.reading() for keeper in list(self._keepers.values()))

    async def stop(self) -> None:
        """End all requests, at once, and then all workers. Called again, waits for the same end."""
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop(), name="stopping all workers")
        await asyncio.shield(self._stopping)

    async def _stop(self) -> None:
        for leaving in self._leaving:
            leaving.cancel()
        await asyncio.gather(*self._leaving, return_exceptions=True)
        await asyncio.gather(*(keeper.stop() for keeper in self._hired))
        self._context.destroy(linger=0)
        self._folder.remove()
