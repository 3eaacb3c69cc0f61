"""A worker process that misbehaves as its model's id says: `python -m tests.fakes.odd_worker`."""

from __future__ import annotations

import threading
import time

from server.config.schema import ModelConfig
from server.errors import LoadFailed, ModelNotFound
from server.types import ModelFacts
from server.workers.child import Send, run_child
from server.workers.messages import Abort, Heartbeat, ToWorker, WorkerSpec


class OddWorker:
    facts = ModelFacts(context_length=1)

    def __init__(self, config: ModelConfig, _spec: WorkerSpec, send: Send) -> None:
        self._oddity = config.id
        self._send = send
        self._stopped = threading.Event()
        if self._oddity == "refuses-to-load":
            raise LoadFailed("the file is damaged")
        if self._oddity == "fails-to-load":
            raise RuntimeError("first line\nsecond line")

    def run(self) -> None:
        if self._oddity == "fails-to-run":
            raise ModelNotFound("a HearthError after the load is a crash like any other")
        if self._oddity == "babbles":
            self._send(Abort("a message that no parent expects"))  # type: ignore[arg-type]
        self._stopped.wait()

    def handle(self, _message: ToWorker) -> None:
        raise RuntimeError("cannot handle anything")  # on the channel's thread

    def heartbeat(self) -> Heartbeat:
        busy_s = 1e6 if self._oddity == "hangs" else 0.0
        return Heartbeat(num_steps=0, busy_s=busy_s, num_waiting=int(self._oddity == "has-lost-a-request"))

    def stop(self) -> None:
        if self._oddity == "does-not-stop":
            time.sleep(3600)
        self._stopped.set()


if __name__ == "__main__":
    run_child(OddWorker)
