"""Faults on purpose, so that what must happen then can be tested: off unless the environment has `FAULTS`.

    FAULTS="worker.decode@37=abort"              the 37th time that a worker is about to compute, it aborts
    FAULTS="worker.load:small=oom,db.commit@3=eio"   several; `:small`: only in the worker of that model

Each process counts for itself: a worker that is started again comes to the same fault again. A point without a number
is the first time. Points are in the source where `reach` is called.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import resource
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from server.errors import ConfigError

logger = logging.getLogger(__name__)

POINTS = ("worker.load", "worker.decode", "worker.heartbeat", "db.commit")

MAX_TAKEN_BYTES = 4 << 30
"""What `hog` takes at most: a mistake shall not take the machine."""

_ENTRY = re.compile(r"(?P<point>[\w.]+)(?::(?P<model>[^@=]+))?(?:@(?P<count>[1-9]\d*))?=(?P<action>\w+)")


@dataclass
class _Fault:
    point: str
    count: int
    action: Callable[[], None]
    num_reached: int = 0


_armed: list[_Fault] = []
"""Of this process. The one piece of global state: handing it to everything that can fail would be for nobody's good."""


def arm(environ: Mapping[str, str], *, model: str | None = None) -> None:
    """Take the faults of the environment up: once, when a process starts.

    Args:
        model: Whose worker this process is.

    Raises:
        ConfigError: `FAULTS` cannot be read.
    """
    entries = [entry.strip() for entry in environ.get("FAULTS", "").split(",") if entry.strip()]
    _armed[:] = [fault for entry in entries if (fault := _read(entry, model)) is not None]
    if _armed:
        logger.warning("things will go wrong on purpose", extra={"faults": environ["FAULTS"]})


def reach(point: str) -> None:
    """Be at a point where a fault may be armed."""
    if _armed:
        _act(point)


def _read(entry: str, model: str | None) -> _Fault | None:
    """The fault of an entry, or None if it is for another model. Raises ConfigError."""
    matched = _ENTRY.fullmatch(entry)
    if matched is None or matched["point"] not in POINTS or matched["action"] not in _ACTIONS:
        raise ConfigError(
            f"FAULTS has {entry!r}; expected point[:model][@number]=action, with a point of {', '.join(POINTS)} and an "
            f"action of {', '.join(_ACTIONS)}"
        )
    if matched["model"] not in (None, model):
        return None
    return _Fault(matched["point"], int(matched["count"] or 1), _ACTIONS[matched["action"]])


def _act(point: str) -> None:
    here = [fault for fault in _armed if fault.point == point]
    for fault in here:
        fault.num_reached += 1
    for fault in here:
        if fault.num_reached == fault.count:
            fault.action()


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _leave_no_memory() -> None:
    """From now on this process gets no more memory than it has."""
    used_bytes = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used_bytes, used_bytes))


def _take_memory() -> None:
    """Take memory until the kernel ends this process; give it back where there was enough."""
    taken = [b"\1" * (16 << 20) for _ in range(MAX_TAKEN_BYTES >> 24)]
    logger.warning("nobody minded that much memory was taken", extra={"num_bytes": sum(map(len, taken))})


def _fail_to_write() -> NoReturn:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def _fill_disk() -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


_ACTIONS: dict[str, Callable[[], None]] = {
    "abort": os.abort,
    "kill": _kill,
    "stop": _stop,
    "oom": _leave_no_memory,
    "hog": _take_memory,
    "eio": _fail_to_write,
    "enospc": _fill_disk,
}
