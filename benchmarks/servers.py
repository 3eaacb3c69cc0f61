"""Start the servers to compare, each on a free port, wait until they answer, stop them."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import yaml

from benchmarks.server_process import ServerProcess

HOST = "127.0.0.1"
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class RunningServer:
    """A server that answers. `name` says what it is and how it was started."""

    name: str
    port: int
    pid: int

    @property
    def rss_bytes(self) -> int:
        """Resident memory of the whole process tree."""
        parent = psutil.Process(self.pid)
        return sum(process.memory_info().rss for process in (parent, *parent.children(recursive=True)))


@contextlib.contextmanager
def hearth(model: dict[str, object], *, name: str = "hearth") -> Iterator[RunningServer]:
    """Serve one model of a generated models.yaml."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "models.yaml"
        settings = {"weights_dir": str(ROOT / "weights"), "log_level": "warning"}
        config.write_text(yaml.safe_dump({"server": settings, "models": [model]}))
        with ServerProcess(config, Path(folder) / "log") as server:
            server.wait_until_settled()
            states = {each["state"] for each in server.models().values()}
            if states != {"ready"}:
                raise RuntimeError(f"hearth is {states}: {server.log_text()[-2000:]}")
            yield RunningServer(name, int(server.url.rpartition(":")[2]), server.process.pid)


@contextlib.contextmanager
def llama_server(binary: Path, weights: Path, flags: Sequence[str], *, threads: int) -> Iterator[RunningServer]:
    """Serve the same weights with llama.cpp's own server."""
    port = free_port()
    command = [str(binary), "-m", str(weights), "--host", HOST, "--port", str(port), "-t", str(threads), *flags]
    with _running(command, port, "/health", name=" ".join(["llama-server", *flags])) as server:
        yield server


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def _running(command: list[str], port: int, ready_path: str, *, name: str) -> Iterator[RunningServer]:
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT) as process,
    ):
        try:
            _wait_until_ready(f"http://{HOST}:{port}{ready_path}", process)
            yield RunningServer(name, port, process.pid)
        except Exception:
            log.seek(0)
            print("\n".join(log.read().splitlines()[-15:]), file=sys.stderr)
            raise
        finally:
            process.terminate()


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], *, timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as response:
            if response.status == 200:
                return
        time.sleep(0.2)
    raise TimeoutError(f"{url} was not ready within {timeout_s:g} s")
