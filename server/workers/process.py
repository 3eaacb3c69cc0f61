"""One incarnation of a worker process: started, spoken with, watched until it ends. Restarting is the supervisor's."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import sys
from collections import deque
from collections.abc import Mapping

import msgspec
import zmq.asyncio

from server.workers.channel import ParentChannel
from server.workers.messages import LOAD_FAILED_EXIT_CODE, Shutdown, WorkerSpec

logger = logging.getLogger(__name__)

_MAX_LOG_LINE_BYTES = 2**20
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)


class WorkerProcess:
    """A running child and its channel.

    Attributes:
        channel: Duplex channel to the child.
        pid: Its process id.
    """

    def __init__(self, process: asyncio.subprocess.Process, channel: ParentChannel, *, model_id: str) -> None:
        self._process = process
        self._model_id = model_id
        self._stderr_tail: deque[str] = deque(maxlen=20)
        self._stderr_pump = asyncio.create_task(self._pump_stderr())
        self.channel = channel
        self.pid = process.pid

    @classmethod
    async def start(
        cls, module: str, spec: WorkerSpec, *, context: zmq.asyncio.Context, model_id: str
    ) -> WorkerProcess:
        """Start `python -m module` and hand it the spec.

        Raises:
            OSError: The operating system refuses another process.
        """
        channel = ParentChannel(context, spec.endpoint)
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                module,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                limit=_MAX_LOG_LINE_BYTES,
                env=child_environment(os.environ, num_threads=spec.num_threads),
            )
        except BaseException:
            channel.close()
            raise
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(spec) + b"\n")  # far below the pipe's size: never blocks
        return cls(process, channel, model_id=model_id)

    @property
    def gave_up(self) -> bool:
        """Whether the process ended because its model cannot be loaded; a `LoadError` is on the channel then."""
        return self._process.returncode == LOAD_FAILED_EXIT_CODE

    @property
    def exit_signal(self) -> int | None:
        """The signal that killed the process; None while it runs or if it ended by itself."""
        code = self._process.returncode
        return -code if code is not None and code < 0 else None

    async def wait(self) -> str:
        """Wait for the end of the process; say how it ended, for people."""
        code = await self._process.wait()
        await self._stderr_pump
        ending = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
        last_words = next((line for line in reversed(self._stderr_tail) if "GGML_ASSERT" in line or "rror" in line), "")
        return f"{ending}: {last_words}" if last_words else ending

    async def stop(self, *, grace_s: float) -> None:
        """Ask the process to stop; kill it if it has not after `grace_s`."""
        if self._process.returncode is None:
            await self.channel.send(Shutdown())
            try:
                await asyncio.wait_for(self._process.wait(), grace_s)
            except TimeoutError:
                self.kill()
                await self._process.wait()
        self.close()

    def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()

    def close(self) -> None:
        self.channel.close()

    async def _pump_stderr(self) -> None:
        """Pass the child's log on, line by line, and keep the end of it to explain a crash."""
        assert self._process.stderr is not None
        while True:
            try:
                line = await self._process.stderr.readline()
            except ValueError:  # longer than the limit, and dropped by the reader
                line = b"(a log line of more than 1 MiB was dropped)\n"
            if not line:
                return
            text = line.decode("utf-8", "replace").rstrip()
            self._stderr_tail.append(text)
            print(text if text.startswith("{") else f"[{self._model_id}] {text}", file=sys.stderr)


def child_environment(environ: Mapping[str, str], *, num_threads: int) -> dict[str, str]:
    """The environment for a worker: the server's, without secrets, offline, with bounded thread pools."""
    kept = {name: value for name, value in environ.items() if not _SECRET.search(name)}
    threads = str(num_threads)
    return kept | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": threads, "PYTHONUNBUFFERED": "1"}
