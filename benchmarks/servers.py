"""Start the servers to compare, each on a free port, wait until they answer, stop them."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks.load import HOST
from benchmarks.server_process import ServerProcess

ROOT = Path(__file__).resolve().parents[1]
START_S = 120.0
STOP_S = 30.0
LOG_LINES = 15
"""Of a server that failed to start, in the error."""


class ServerFailed(Exception):
    """A server did not start; the message has the end of its log."""


@dataclass(frozen=True)
class RunningServer:
    """A server that answers.

    Attributes:
        runtime: What it says of its own choices (layout, threads), for the record.
    """

    port: int
    pid: int
    runtime: Mapping[str, object] = field(default_factory=dict)

    @property
    def rss_bytes(self) -> int:
        """Resident memory of the whole process tree; 0 when it is gone."""
        try:
            parent = psutil.Process(self.pid)
            return sum(process.memory_info().rss for process in (parent, *parent.children(recursive=True)))
        except psutil.NoSuchProcess:
            return 0


@contextlib.contextmanager
def hearth(
    *models: Mapping[str, object],
    data_dir: Path | None = None,
    rag: Mapping[str, object] | None = None,
    limits: Mapping[str, object] | None = None,
) -> Iterator[RunningServer]:
    """Serve models, given as their entries in models.yaml; `runtime` is that of the first.

    Args:
        data_dir: Of files and vector stores; default: an empty one.
        rag, limits: The sections of these names.

    Raises:
        ServerFailed: It cannot serve one of them.
    """
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "models.yaml"
        write_config(config, models, data_dir=data_dir or Path(folder) / "data", rag=rag, limits=limits)
        with _as_server_failed(RuntimeError):
            server = ServerProcess(config, Path(folder) / "log")
        with server:
            with _as_server_failed(TimeoutError):
                server.wait_until_settled(START_S)
            served = server.models()
            for name, model in served.items():
                if model["state"] != "ready":
                    raise ServerFailed(f"{name} is {model['state']}: {model.get('error')}")
            runtime = served[str(models[0]["id"])]["runtime"]
            yield RunningServer(int(server.url.rpartition(":")[2]), server.process.pid, runtime)


def default_models() -> list[dict[str, Any]]:
    """The models that models.yaml of the repository has, as they stand there."""
    models: list[dict[str, Any]] = yaml.safe_load((ROOT / "models.yaml").read_text(encoding="utf-8"))["models"]
    return models


def write_config(
    path: Path,
    models: Iterable[Mapping[str, object]],
    *,
    data_dir: Path,
    rag: Mapping[str, object] | None = None,
    limits: Mapping[str, object] | None = None,
) -> None:
    """Write a models.yaml for benchmarks: weights of the repository, nothing said but what is wrong."""
    settings = {
        "weights_dir": str(ROOT / "weights"),
        "data_dir": str(data_dir),
        "log_level": "warning",
        "limits": dict(limits or {}),
    }
    sections = {"server": settings, "rag": dict(rag or {}), "models": [dict(model) for model in models]}
    path.write_text(yaml.safe_dump(sections))


@contextlib.contextmanager
def llama_server(binary: Path, weights: Path, flags: Sequence[str], *, threads: int) -> Iterator[RunningServer]:
    """Serve the same weights with llama.cpp's own server.

    Raises:
        ServerFailed: It cannot.
    """
    port = free_port()
    command = [str(binary), "-m", str(weights), "--host", HOST, "--port", str(port), "-t", str(threads), *flags]
    with started(command, port) as server:
        yield server


@contextlib.contextmanager
def started(
    command: Sequence[str], port: int, *, environment: Mapping[str, str] | None = None
) -> Iterator[RunningServer]:
    """Run a command that serves on `port` and answers `/health` with 200 once it is ready.

    Raises:
        ServerFailed: It does not.
    """
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, env={**os.environ, **(environment or {})}
        ) as process,
    ):
        try:
            if not _answers(f"http://{HOST}:{port}/health", process):
                log.seek(0)
                end = "\n".join(log.read().splitlines()[-LOG_LINES:])
                raise ServerFailed(f"{Path(command[0]).name} ended with {process.poll()} or did not answer: {end}")
            yield RunningServer(port, process.pid)
        finally:
            _stop(process)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(url: str, process: subprocess.Popen[bytes]) -> bool:
    """Wait until the server is ready; false when it ends before, or takes too long."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as response:
            if response.status == 200:
                return True
        time.sleep(0.1)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()


@contextlib.contextmanager
def _as_server_failed(kind: type[Exception]) -> Iterator[None]:
    try:
        yield
    except kind as exc:
        raise ServerFailed(str(exc)) from exc
