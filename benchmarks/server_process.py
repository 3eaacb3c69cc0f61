"""A `hearth serve` of one's own: a child on a free port, its log in a file.

Benchmarks and integration tests both start the server here, in one way: what is measured is what is tested.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sysconfig
import time
from pathlib import Path
from typing import Any, Self

import httpx
import psutil

HEARTH = str(Path(sysconfig.get_path("scripts")) / "hearth")

STOP_S = 45.0
"""More than the server takes to end when it drains for as long as it may."""


def environment() -> dict[str, str]:
    """Ours without `HEARTH_*`: what a measurement or a test means stands in its models.yaml."""
    return {name: value for name, value in os.environ.items() if not name.startswith("HEARTH_")}


class ServerProcess:
    """A running server. Leaving its `with` block stops it, by force if need be.

    Attributes:
        url: Where it listens, without a slash at the end.
        hello: The first line that it printed.
    """

    def __init__(self, config: Path, log: Path, *, port: int = 0, own_session: bool = False, faults: str = "") -> None:
        """Start it with the models of `config`; returns as soon as it listens, while models load. Port 0: a free one.

        Args:
            faults: What shall go wrong in it; see `server/faults.py`.

        Raises:
            RuntimeError: It ended at once; the message has its log.
        """
        self._log = log
        with log.open("wb") as stderr:
            self.process = psutil.Popen(
                [HEARTH, "serve", "--config", str(config), "--port", str(port)],
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env={**environment(), "FAULTS": faults},
                start_new_session=own_session,
            )
        self.hello: str = self.process.stdout.readline()
        address = re.search(r"listens on (http://\S+)", self.hello)
        if address is None:
            self.stop()
            raise RuntimeError(f"hearth serve printed {self.hello!r} and ended with: {self.log_text()}")
        self.url = address[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def models(self) -> dict[str, Any]:
        """Answer of `GET /v1/models`, by model id."""
        return {model["id"]: model for model in httpx.get(f"{self.url}/v1/models", timeout=30).json()["data"]}

    def wait_until_settled(self, timeout_s: float = 120.0) -> None:
        """Wait until no model is loading any more.

        Raises:
            TimeoutError: One still is.
        """
        deadline = time.monotonic() + timeout_s
        while loading := [name for name, model in self.models().items() if model["state"] == "loading"]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{', '.join(loading)} still loading after {timeout_s:g} s: {self.log_text()}")
            time.sleep(0.1)

    def worker_pids(self) -> dict[str, int]:
        """Process ids of the living workers, by model id; the log is the only place that tells."""
        events = [json.loads(line) for line in self.log_text().splitlines() if '"worker started"' in line]
        return {event["model"]: event["pid"] for event in events if psutil.pid_exists(event["pid"])}

    def log_text(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def stop(self) -> int:
        """End the server as an operator would, with SIGTERM; return its exit code (negative if it had to be killed)."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except psutil.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        return int(self.process.returncode)
