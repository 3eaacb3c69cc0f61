"""Keeps the worker of one model alive: starts it, watches its heartbeat, restarts it, gives up when it keeps dying.

A model that was given up is tried once more when somebody asks for it later: files may have come, memory may be free.
One that finds no room in memory has not failed: it stays unloaded, and the next request asks for it again.

    unloaded ──load──▶ loading ──▶ ready ──unload──▶ draining ──▶ unloaded
       ▲                │   ▲        │                  │
       └──no room───────┘   └─died───┘                  └─stop─▶ (draining, for good)
                        └──▶ failed ──a later request──▶ loading
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import signal
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from pathlib import Path

import msgspec
import zmq

from server.config.schema import Backend, ModelConfig
from server.config.server_section import Limits
from server.errors import HearthError, LoadFailed, NoRoom
from server.telemetry.metrics import ModelReading
from server.types import ModelKind
from server.workers.client import WorkerClient
from server.workers.cpu_split import CpuSplit
from server.workers.messages import WorkerSpec
from server.workers.process import WorkerProcess
from server.workers.readings import model_reading
from server.workers.recent_lines import RecentLines
from server.workers.supervision_policy import SupervisionPolicy
from server.workers.watch import watch

logger = logging.getLogger(__name__)

MODULE_OF: dict[tuple[ModelKind, Backend], str] = {
    ("chat", "llama_cpp"): "server.workers.chat_worker",
    ("chat", "script"): "server.workers.script_worker",
    ("embedding", "sentence_transformers"): "server.workers.encoder_worker",
    ("rerank", "sentence_transformers"): "server.workers.encoder_worker",
    ("embedding", "llama_cpp"): "server.workers.encoder_worker",
    ("rerank", "llama_cpp"): "server.workers.encoder_worker",
}
"""Child mains, by name only: this process must not import what they import."""


SpecFactory = Callable[[str], WorkerSpec]
"""endpoint -> spec; raises `HearthError` when the model's files are not there. May read files: called on a thread."""


MakeRoom = Callable[["Keeper"], AbstractAsyncContextManager[str]]
"""Entered before a worker is started, left when its memory is free again: waits for room, and says for people what the
model needs and what there is; raises `NoRoom`."""


class Keeper:
    """Keeps the worker of one model alive, on the API process's event loop.

    Attributes:
        config: The model's. What only the API process looks at may be changed.
        client: The model as services see it; outlives the workers.
        is_retired: It is leaving for good, or has left.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        limits: Limits,
        policy: SupervisionPolicy,
        make_spec: SpecFactory,
        context: zmq.Context[zmq.Socket[bytes]],
        folder: Path,
        cpu_split: CpuSplit | None = None,
        make_room: MakeRoom | None = None,
        lines: RecentLines | None = None,
    ) -> None:
        self.config = config
        self._make_room = make_room or (lambda _keeper: nullcontext(""))
        self._lines = lines
        self._policy = policy
        self._make_spec = make_spec
        self._context = context
        self._folder = folder
        self._task: asyncio.Task[None] | None = None
        self._unloading: asyncio.Task[None] | None = None
        self._process: WorkerProcess | None = None
        # Times on the monotonic clock.
        self._crashes: deque[float] = deque()
        self._failed_at: float | None = None
        self._trial_ends_at = 0.0  # a crash before that fails the model again at once
        self._needs_portable_kernels = False
        self._num_crashes = 0
        self._was_killed_loading = False
        self._is_stopped = False
        self.is_retired = False
        self.client = WorkerClient(config, limits, request_load=self.load, cpu_split=cpu_split)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def reading(self) -> ModelReading:
        """The model and its worker as they are now."""
        return model_reading(self.config, self.client, pid=self.pid, num_restarts=self._num_crashes)

    def load(self, *, insists: bool = False) -> None:
        """Start loading, unless the model is loading, loaded or draining, or has failed just now.

        Args:
            insists: However short a time ago it has failed.
        """
        if self._is_stopped or _is_running(self._task) or _is_running(self._unloading):
            return
        if self._failed_at is not None:
            now = time.monotonic()
            if now - self._failed_at < self._policy.retry_failed_after_s and not insists:
                return
            self._trial_ends_at = now + self._policy.crash_window_s
        self.client.begin_load()
        self._task = asyncio.create_task(self._keep_alive(), name=f"keeper of {self.config.id}")

    def unload(self) -> asyncio.Task[None]:
        """Begin to free the model's memory; the task ends when that is done. Called again, returns the same task.

        From this moment on no request goes to the worker: those that come, or wait for a load, have the model loaded
        again when it is gone. Those that run may take `drain_s` to end, and get `ModelUnavailable` then.
        """
        if self._unloading is None or self._unloading.done():
            if self.client.state in ("ready", "loading"):
                self.client.set_state("draining")
            self._unloading = asyncio.create_task(self._unload(), name=f"unloading {self.config.id}")
        return self._unloading

    async def retire(self, heir: WorkerClient | None = None) -> None:
        """Leave for good, without dropping a request: those that run end as in `unload`, later ones go to the heir.

        What has found this model before it left the registry, and comes without an heir, is served until nothing runs.
        """
        self.is_retired = True
        if heir is not None:
            self.client.hand_over(heir)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._policy.drain_s):
                await self.client.all_answered()
        await self.stop()

    async def stop(self) -> None:
        """End the worker for good. Requests in flight and later ones get `ModelUnavailable`."""
        self._is_stopped = True
        self.client.close()  # first, so that requests hear of a stop and not of a crash
        await self._end(self._unloading)
        await self._end(self._task)
        self.client.close()

    async def _unload(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._policy.drain_s):
                await self.client.all_answered()
        await self._end(self._task)
        self._failed_at = None
        self.client.set_state("unloaded")

    @staticmethod
    async def _end(task: asyncio.Task[None] | None) -> None:
        if task is not None:
            if not task.cancelling():  # a second time, as when a stop follows an unload, would cut its clean-up off
                task.cancel()
            await asyncio.wait((task,))

    async def _keep_alive(self) -> None:
        """Have the model loaded for as long as there is room for it and it can be."""
        try:
            async with self._make_room(self) as memory:
                self.client.note_room()
                await self._restart_for_ever(memory)
        except NoRoom as exc:
            logger.warning("no room for model", extra={"model": self.config.id, "reason": exc.message})
            self.client.refuse(exc)
        except LoadFailed as exc:
            logger.error("model failed", extra={"model": self.config.id, "reason": exc.message})
            self._fail(exc.message)
        except Exception:
            logger.exception("keeper failed", extra={"model": self.config.id})
            self._fail("internal error; the server's log has details")

    async def _restart_for_ever(self, memory: str) -> None:
        """Start the worker again and again, until it cannot be loaded or keeps dying.

        Raises:
            LoadFailed: Always.
        """
        while True:
            try:
                ending = await self._run_once()
            except OSError as exc:
                ending = f"it cannot be started: {exc}"
            if self._was_killed_loading:
                raise LoadFailed(f"its worker was killed while it loaded, most likely for want of memory: {memory}")
            self._record_crash(ending)
            await asyncio.sleep(self._backoff_s)

    def _fail(self, reason: str) -> None:
        self._failed_at = time.monotonic()
        self.client.set_state("failed", failure=reason)

    async def _run_once(self) -> str:
        """Run one worker from start to end; say how it ended.

        Raises:
            LoadFailed: It cannot load its model, and trying again at once will not help.
        """
        self._was_killed_loading = False
        process = self._process = await self._start()
        listening = asyncio.create_task(watch(self.config.id, self.client, process, self._policy))
        ending = asyncio.create_task(process.wait())
        try:
            await asyncio.wait((listening, ending), return_when=asyncio.FIRST_COMPLETED)
            if process.gave_up:  # its `LoadError` may still be on the way
                await asyncio.wait((listening,), timeout=self._policy.stop_grace_s)
            if listening.done():
                reason = listening.result()
                process.kill()  # hung: it would not hear a polite request
                return reason
            self._needs_portable_kernels |= process.exit_signal == signal.SIGILL
            self._was_killed_loading = process.exit_signal == signal.SIGKILL and self.client.state == "loading"
            return ending.result()
        finally:
            self.client.detach()  # first, so that no request goes to a worker that is being ended
            await _cancel(listening)
            await process.stop(grace_s=self._policy.stop_grace_s)
            await ending
            self._process = None

    async def _start(self) -> WorkerProcess:
        endpoint = f"ipc://{self._folder}/{secrets.token_hex(4)}"  # not the model's name: 107 bytes is all there is
        try:
            spec = await asyncio.to_thread(self._make_spec, endpoint)
        except HearthError as exc:
            raise LoadFailed(exc.message) from exc
        if self._needs_portable_kernels:
            spec = msgspec.structs.replace(spec, portable_kernels=True)
        module = MODULE_OF[self.config.kind, self.config.backend]
        process = await WorkerProcess.start(
            module,
            spec,
            context=self._context,
            model_id=self.config.id,
            device=self.config.device,
            lines=self._lines,
        )
        logger.info("worker started", extra={"model": self.config.id, "pid": process.pid})
        return process

    def _record_crash(self, ending: str) -> None:
        """Note a crash.

        Raises:
            LoadFailed: There have been too many lately, or the model was on trial after those.
        """
        now = time.monotonic()
        while self._crashes and now - self._crashes[0] > self._policy.crash_window_s:
            self._crashes.popleft()
        self._crashes.append(now)
        self._num_crashes += 1
        extra = {"model": self.config.id, "ending": ending, "crashes": len(self._crashes)}
        logger.error("worker died", extra=extra)
        if now < self._trial_ends_at:
            raise LoadFailed(f"its worker died again when it was tried once more: {ending}")
        if len(self._crashes) >= self._policy.max_crashes:
            window = f"{self._policy.crash_window_s:g} s"
            raise LoadFailed(f"its worker died {len(self._crashes)} times within {window}, at last: {ending}")

    @property
    def _backoff_s(self) -> float:
        return min(self._policy.first_backoff_s * 2.0 ** (len(self._crashes) - 1), self._policy.max_backoff_s)


async def _cancel(task: asyncio.Task[str]) -> None:
    """Cancel a task and wait until it is over, however it ends."""
    task.cancel()
    await asyncio.wait((task,))


def _is_running(task: asyncio.Task[None] | None) -> bool:
    return task is not None and not task.done()
