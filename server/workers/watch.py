"""Watches one worker: passes on what it says for the client, and judges by the rest whether it may go on."""

from __future__ import annotations

import asyncio
import logging
import time

import msgspec

from server.errors import LoadFailed
from server.workers.channel import HEARTBEAT_INTERVAL_S
from server.workers.client import WorkerClient
from server.workers.messages import FromWorker, Heartbeat, LoadError, Ready
from server.workers.process import WorkerProcess
from server.workers.supervision_policy import SupervisionPolicy

logger = logging.getLogger(__name__)

_LOOK_S = 0.5
"""How often to look whether the worker has been silent for too long."""

_STALL_S = 1.0
"""A look that comes so much too late says nothing about the worker."""


async def watch(model_id: str, client: WorkerClient, process: WorkerProcess, policy: SupervisionPolicy) -> str:
    """Pass the worker's messages on for as long as it makes progress; say why it does not.

    Raises:
        LoadFailed: It said so.
    """
    ears = _Ears(model_id, client, process, policy)
    process.channel.listen(ears.hear, ears.hear_garbage)
    try:
        while not ears.verdict.done():
            asked = time.monotonic()
            await asyncio.wait((ears.verdict,), timeout=_LOOK_S)
            now = time.monotonic()
            if now - asked > _LOOK_S + _STALL_S:
                ears.heard_at = now  # it is this process that stood still (Ctrl-Z, a paused container): listen again
            elif now - ears.heard_at > ears.patience_s:
                return f"no heartbeat for {ears.patience_s:g} s"
        return ears.verdict.result()
    finally:
        ears.verdict.cancel()  # nobody waits for it any more


class _Ears:
    """Hears what one worker says, passes on what is for the client, and judges the rest.

    Attributes:
        verdict: Done when the worker must not go on: why, or `LoadFailed`.
        heard_at: When it last said something, on the monotonic clock.
        patience_s: How long it may be silent.
    """

    def __init__(self, model_id: str, client: WorkerClient, process: WorkerProcess, policy: SupervisionPolicy) -> None:
        self._model_id = model_id
        self._client = client
        self._process = process
        self._policy = policy
        self._progress = _Progress()
        self._started_at = self.heard_at = time.monotonic()
        self.patience_s = policy.load_heartbeat_timeout_s
        self.verdict: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def hear(self, message: FromWorker) -> None:
        self.heard_at = time.monotonic()
        if self.verdict.done():
            return
        try:
            if isinstance(message, Ready):
                self._hear_ready(message)
            elif isinstance(message, LoadError):
                raise LoadFailed(message.message)
            elif isinstance(message, Heartbeat):
                self._hear_heartbeat(message)
            else:
                self._client.dispatch(message)
        except Exception as exc:  # whatever it is, the keeper must learn of it: nobody else looks after this worker
            self.verdict.set_exception(exc)

    def hear_garbage(self, error: msgspec.DecodeError) -> None:
        self._judge(f"it sent a message that cannot be read: {error}")

    def _hear_ready(self, ready: Ready) -> None:
        self.patience_s = self._policy.heartbeat_timeout_s
        self._client.attach(self._process.channel, ready.facts)
        extra = {"model": self._model_id, "pid": self._process.pid, "load_s": ready.facts.load_s}
        logger.info("model ready", extra=extra)

    def _hear_heartbeat(self, beat: Heartbeat) -> None:
        policy = self._policy
        self._client.note_heartbeat(beat)
        if beat.busy_s > policy.step_timeout_s:
            self._judge(f"one step has taken {beat.busy_s:.0f} s")
        elif (stalled_s := self._progress.stalled_s(beat)) > policy.step_timeout_s:
            self._judge(f"it has had work for {stalled_s:.0f} s and finished nothing of it")
        elif self._client.state == "loading" and self.heard_at - self._started_at > policy.load_timeout_s:
            raise LoadFailed(f"not loaded after {policy.load_timeout_s:g} s")

    def _judge(self, reason: str) -> None:
        if not self.verdict.done():
            self.verdict.set_result(reason)


class _Progress:
    """Whether a worker gets on with its work, as its heartbeats tell.

    Time is counted in heartbeats: in a pause of the whole machine, which is nobody's fault, there are none.
    """

    def __init__(self) -> None:
        self._num_steps = 0
        self._num_stalled_beats = 0

    def stalled_s(self, beat: Heartbeat) -> float:
        """For how long, as of this heartbeat, the worker has had work and finished no step."""
        is_stalled = beat.num_running + beat.num_waiting > 0 and beat.num_steps == self._num_steps
        self._num_stalled_beats = self._num_stalled_beats + 1 if is_stalled else 0
        self._num_steps = beat.num_steps
        return self._num_stalled_beats * HEARTBEAT_INTERVAL_S
