"""What every worker process does around its model: start, report, listen, stop. Knows no kind of model."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, Protocol

import msgspec

from server import faults
from server.config.schema import ModelConfig
from server.errors import HearthError
from server.telemetry.logs import configure_logs
from server.types import ModelFacts
from server.workers.channel import ChildChannel
from server.workers.messages import (
    CRASHED_EXIT_CODE,
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
        load: Makes the worker; a `HearthError` from it is reported as a failure that trying again will not mend. Any
            other exception, on any thread, ends the process as a crash.
    """
    _bind_fate_to_parent()
    spec = msgspec.json.decode(sys.stdin.buffer.readline(), type=WorkerSpec)
    config = ModelConfig.model_validate_json(spec.model_json)
    configure_logs(spec.log_level, spec.log_format, model=config.id)
    faults.arm(os.environ, model=config.id)
    threading.excepthook = _die_of_thread
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
        faults.reach("worker.load")
        loaded = load(config, spec, channel.send)
        facts = msgspec.structs.replace(loaded.facts, load_s=round(time.monotonic() - started, 3))
        worker = loaded
        channel.send(Ready(facts))
        worker.run()
    except Exception as exc:
        if worker is None and isinstance(exc, HearthError):
            channel.send(LoadError(exc.message))
            exit_code = LOAD_FAILED_EXIT_CODE
        else:
            logger.exception("worker failed")
            exit_code = CRASHED_EXIT_CODE
    channel.close()
    _exit(exit_code)


def _bind_fate_to_parent() -> None:
    """Die with the parent, before it when memory runs out, and never by a polite signal that is meant for it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if _has_hung_up(sys.stdin.fileno()):
        os._exit(CRASHED_EXIT_CODE)  # the parent died before we asked to be told
    for polite in (signal.SIGINT, signal.SIGTERM):  # sent to the whole group by terminals and systemd
        signal.signal(polite, signal.SIG_IGN)
    faulthandler.enable()
    with contextlib.suppress(OSError):  # a masked or read-only /proc: then memory's victim is picked by size alone
        Path("/proc/self/oom_score_adj").write_text("500")


def _has_hung_up(pipe: int) -> bool:
    """Whether the other end is closed, read or not what it wrote. The parent keeps its end open while it lives."""
    poller = select.poll()
    poller.register(pipe, 0)
    return bool(poller.poll(0))


def _die_of_thread(args: threading.ExceptHookArgs) -> None:
    """A worker that has lost a thread would only look alive."""
    exc_info = (args.exc_type, args.exc_value or args.exc_type(), args.exc_traceback)
    try:
        logger.error("worker failed", exc_info=exc_info)
    finally:
        _exit(CRASHED_EXIT_CODE)


def _exit(code: int) -> NoReturn:
    """End now. Not sys.exit: torch and ONNX threads may take seconds to wind down, for nothing."""
    logging.shutdown()
    os._exit(code)
