"""Owns the keepers of all models, and what they share: the ZeroMQ context and the folder of the sockets."""

from __future__ import annotations

import asyncio

import zmq

from server.config.schema import Limits, ModelConfig
from server.telemetry.metrics import ModelReading
from server.workers.client import WorkerClient
from server.workers.cpu_split import CpuSplit
from server.workers.keeper import Keeper, SpecFactory, SupervisionPolicy
from server.workers.socket_folder import SocketFolder


class Supervisor:
    """Runs the workers of all models. One task per model; everything on the API process's event loop.

    Args:
        bulk_share: See `CpuSplit`.
    """

    def __init__(self, limits: Limits, policy: SupervisionPolicy | None = None, *, bulk_share: float = 1.0) -> None:
        self._limits = limits
        self._cpu_split = CpuSplit(bulk_share)
        self._policy = policy or SupervisionPolicy()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._folder = SocketFolder()
        self._keepers: dict[str, Keeper] = {}
        self._stopping: asyncio.Task[None] | None = None

    def add(self, config: ModelConfig, make_spec: SpecFactory) -> WorkerClient:
        """Take a model into care; it stays `unloaded` until `load`, or until a request needs it."""
        keeper = Keeper(
            config,
            limits=self._limits,
            policy=self._policy,
            make_spec=make_spec,
            context=self._context,
            folder=self._folder.path,
            cpu_split=self._cpu_split,
        )
        self._keepers[config.id] = keeper
        return keeper.client

    def load(self, model_id: str) -> None:
        """Start loading a model; returns at once. Does nothing if it is loading or loaded, or has failed just now."""
        self._keepers[model_id].load()

    def pid(self, model_id: str) -> int | None:
        """Process id of the model's worker, if one runs."""
        return self._keepers[model_id].pid

    def readings(self) -> tuple[ModelReading, ...]:
        """All models and their workers as they are now."""
        return tuple(keeper.reading() for keeper in self._keepers.values())

    async def stop(self) -> None:
        """End all requests, at once, and then all workers. Called again, waits for the same end."""
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop(), name="stopping all workers")
        await asyncio.shield(self._stopping)

    async def _stop(self) -> None:
        await asyncio.gather(*(keeper.stop() for keeper in self._keepers.values()))
        self._context.destroy(linger=0)
        self._folder.remove()
