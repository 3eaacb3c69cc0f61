"""What a server and its children hold of the machine, taken every few seconds from outside."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import Self

import psutil

from benchmarks.server_process import ServerProcess

SAMPLE_S = 5.0

SERVER, OTHERS = "server", "others"
"""Roles besides the workers, which are called as their models: the process that listens, and children that come and go,
such as the one that parses documents."""


@dataclass(frozen=True)
class Held:
    """Of all processes of one role.

    Attributes:
        memory_mb: Proportional set size: what several processes share counts in equal parts.
    """

    memory_mb: float = 0.0
    num_fds: int = 0
    num_threads: int = 0

    def __add__(self, other: Self) -> Held:
        return Held(
            self.memory_mb + other.memory_mb,
            self.num_fds + other.num_fds,
            self.num_threads + other.num_threads,
        )


@dataclass(frozen=True)
class Sample:
    """One look at everything.

    Attributes:
        at_s: On `time.perf_counter`.
        zombies: Process ids. Every child is one for an instant; one that is found twice is one that nobody waits for.
        num_sockets: Open TCP connections of the server.
        cpu_share: Of all cores of the machine since the last sample, the clients included.
    """

    at_s: float
    roles: dict[str, Held]
    zombies: frozenset[int] = frozenset()
    num_sockets: int = 0
    cpu_share: float = 0.0


async def watch(server: ServerProcess, samples: list[Sample], is_over: asyncio.Event) -> None:
    """Take samples until it is over."""
    names = {pid: name for name, pid in server.worker_pids().items()}
    psutil.cpu_percent()  # counts from here
    while not is_over.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(is_over.wait(), SAMPLE_S)
        samples.append(await asyncio.to_thread(take, server.process.pid, names))


def take(server_pid: int, workers: dict[int, str]) -> Sample:
    """Look once.

    Args:
        workers: By process id, what its model is called.
    """
    server = psutil.Process(server_pid)
    roles: dict[str, Held] = {}
    zombies = set()
    for process in (server, *server.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):  # ended meanwhile
            if process.status() == psutil.STATUS_ZOMBIE:
                zombies.add(process.pid)
                continue
            role = _role(process, server_pid, workers)
            held = Held(process.memory_full_info().pss / 1e6, process.num_fds(), process.num_threads())
            roles[role] = roles.get(role, Held()) + held
    num_sockets = sum(each.status == psutil.CONN_ESTABLISHED for each in server.net_connections("tcp"))
    return Sample(time.perf_counter(), roles, frozenset(zombies), num_sockets, psutil.cpu_percent() / 100)


def _role(process: psutil.Process, server_pid: int, workers: dict[int, str]) -> str:
    """A worker's children are its own."""
    if process.pid == server_pid:
        return SERVER
    return next((workers[each.pid] for each in (process, *process.parents()) if each.pid in workers), OTHERS)
