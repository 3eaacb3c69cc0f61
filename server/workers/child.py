"""What every worker process does around its model: start, report, listen, stop. Knows no kind of model."""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from server.config.schema import ModelConfig
from server.errors import HearthError
from server.telemetry.logs import configure_logs
from server.types import ModelFacts
from server.workers.channel import ChildChannel
from server.workers.messages import (
    LOAD_FAILED_EXIT_CODE,
    FromWorker,
    Heartbeat,
    LoadError,
    Ready,
    Shutdown,
    ToWorker,
    WorkerSpec,
)

logger = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1

Send = Callable[[FromWorker], None]


class Worker(Protocol):
    """A loaded model inside its process."""

    @property
    def facts(self) -> ModelFacts: ...

    def handle(self, message: ToWorker) -> None:
        """Take a message; called on the channel's thread, must return at once."""

    def heartbeat(self) -> Heartbeat: ...

    def run(self) -> None:
        """Work until `stop` is called."""

    def stop(self) -> None: ...


def run_child(load: Callable[[ModelConfig, WorkerSpec, Send], Worker]) -> None:
    """Be a worker process: read the spec from standard input, load the model, serve it until told to stop.

    Args:
        load: Makes the worker; a `HearthError` from it is reported as a failure that trying again will not mend.
    """
    spec = msgspec.json.decode(sys.stdin.buffer.readline(), type=WorkerSpec)
    _bind_fate_to_parent()
    configure_logs(spec.log_level, spec.log_format)
    worker: Worker | None = None

    def on_message(message: ToWorker) -> None:
        if isinstance(message, Shutdown):
            if worker is None:
                os._exit(0)  # still loading: nothing to lose
            worker.stop()
        else:
            assert worker is not None  # the parent sends requests only after `Ready`
            worker.handle(message)

    def heartbeat() -> Heartbeat:
        return worker.heartbeat() if worker else Heartbeat(num_steps=0, busy_s=0.0)

    channel = ChildChannel(spec.endpoint, on_message=on_message, heartbeat=heartbeat)
    channel.start()
    exit_code = 0
    try:
        started = time.monotonic()
        loaded = load(ModelConfig.model_validate_json(spec.model_json), spec, channel.send)
        facts = msgspec.structs.replace(loaded.facts, load_s=round(time.monotonic() - started, 3))
        worker = loaded
        channel.send(Ready(facts))
        worker.run()
    except HearthError as exc:
        channel.send(LoadError(exc.message))
        exit_code = LOAD_FAILED_EXIT_CODE
    channel.close()
    logging.shutdown()
    os._exit(exit_code)  # not sys.exit: torch and ONNX threads may take seconds to wind down, for nothing


def _bind_fate_to_parent() -> None:
    """Die with the parent, before it when memory runs out, and never by a Ctrl-C that is meant for it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable()
    Path("/proc/self/oom_score_adj").write_text("500")
