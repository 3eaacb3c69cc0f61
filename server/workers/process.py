"""One incarnation of a worker process: started, spoken with, watched until it ends. Restarting is the supervisor's."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import signal
import sys
from collections import deque
from collections.abc import Mapping, Sequence

import msgspec
import zmq

from server.bindings.gpu import gpu_environment
from server.bindings.gpu_failure import explain_gpu_failure
from server.workers.channel import ParentChannel
from server.workers.messages import LOAD_FAILED_EXIT_CODE, Shutdown, WorkerSpec
from server.workers.recent_lines import RecentLines

logger = logging.getLogger(__name__)

_MAX_LOG_LINE_BYTES = 2**20
_MAX_TAIL_LINES = 100  # an abort message is followed by the stacks of all threads
_LAST_WORDS_S = 1.0
_PASSED_ON = re.compile(
    r"PATH|HOME|USER|LOGNAME|LANG|LANGUAGE|TZ|TERM|NO_COLOR|TMPDIR|VIRTUAL_ENV|HF_HOME|FAULTS|PYTHON.*"
    r"|(LC|LD|XDG|OMP|GOMP|KMP|MKL|OPENBLAS|GGML|CUDA|NVIDIA|TORCH|PYTORCH)_.*"
)
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL")


class WorkerProcess:
    """A running child and its channel.

    Attributes:
        channel: Duplex channel to the child.
        pid: Its process id.
    """

    def __init__(
        self, process: asyncio.subprocess.Process, channel: ParentChannel, *, model_id: str, lines: RecentLines
    ) -> None:
        self._process = process
        self._model_id = model_id
        self._lines = lines
        self._stderr_tail: deque[str] = deque(maxlen=_MAX_TAIL_LINES)
        self._stderr_pump = asyncio.create_task(self._pump_stderr())
        self.channel = channel
        self.pid = process.pid

    @classmethod
    async def start(
        cls,
        module: str,
        spec: WorkerSpec,
        *,
        context: zmq.Context[zmq.Socket[bytes]],
        model_id: str,
        device: str = "auto",
        lines: RecentLines | None = None,
    ) -> WorkerProcess:
        """Start `python -m module` and hand it the spec; `lines` get what it logs. `device`: as in models.yaml.

        Raises:
            OSError: The operating system refuses another process.
        """
        channel = ParentChannel(context, spec.endpoint)
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # a folder named `server` where the server was started is not ours
                "-m",
                module,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                limit=_MAX_LOG_LINE_BYTES,
                env=child_environment(os.environ, num_threads=spec.num_threads, device=device),
            )
        except BaseException:
            channel.close()
            raise
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(spec) + b"\n")  # far below the pipe's size: never blocks
        return cls(process, channel, model_id=model_id, lines=lines or RecentLines())

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
        # Whatever the process has started may hold its stderr open: last words are worth a moment's wait, no more.
        await asyncio.wait((self._stderr_pump,), timeout=_LAST_WORDS_S)
        self._stderr_pump.cancel()
        ending = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
        words = last_words(self._stderr_tail)
        return f"{ending}: {words}" if words else ending

    async def stop(self, *, grace_s: float) -> None:
        """Ask the process to stop; kill it if it cannot hear, or has not stopped after `grace_s`."""
        try:
            if self._process.returncode is None and self.channel.send(Shutdown()):
                await asyncio.wait_for(self._process.wait(), grace_s)
        except TimeoutError:
            logger.warning("worker does not stop; killing it", extra={"model": self._model_id, "pid": self.pid})
        finally:
            self.kill()
            self.channel.close()

    def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()

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
            self._lines.add(self._model_id, text)
            with contextlib.suppress(OSError):  # nobody reads our log any more; the worker must still be drained
                print(text if text.startswith("{") else f"[{self._model_id}] {text}", file=sys.stderr)


def child_environment(environ: Mapping[str, str], *, num_threads: int, device: str = "auto") -> dict[str, str]:
    """The environment for a worker: of the server's, what libraries need to run; offline, with bounded thread pools,
    and with the GPUs that `device` of models.yaml names.

    What is not known to be needed stays away: a password may be in any variable, as in `HTTPS_PROXY`.
    """
    kept = {name: value for name, value in environ.items() if _PASSED_ON.fullmatch(name) and not _SECRET.search(name)}
    threads = str(num_threads)
    bounds = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": threads, "PYTHONUNBUFFERED": "1"}
    return kept | bounds | gpu_environment(device, environ)


class _LogLine(msgspec.Struct):
    event: str = ""
    exception: str = ""


def last_words(lines: Sequence[str]) -> str:
    """The line that explains a death best: what a GPU's failure means, a failed assertion of llama.cpp, else the last
    error; empty if none."""
    if meaning := explain_gpu_failure([_gist(line) for line in lines]):
        return meaning
    newest_first = list(reversed(lines))
    for sign in ("GGML_ASSERT", "rror"):
        if line := next((line for line in newest_first if sign in line), ""):
            return _gist(line)
    return ""


def _gist(line: str) -> str:
    """Of a JSON log line the exception (without its stack) or the event; other lines as they are."""
    try:
        entry = msgspec.json.decode(line, type=_LogLine)
    except msgspec.DecodeError:
        return line
    after_header = entry.exception.rpartition("Traceback (most recent call last):\n")[2]
    return next((line for line in after_header.splitlines() if not line.startswith(" ")), entry.event)
