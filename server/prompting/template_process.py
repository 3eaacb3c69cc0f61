"""Renders a chat template in a child process: whatever it does there, the worker waits for seconds at most.

Nothing inside a process can bound a template. Steps may be counted, but `[x, x]` forty times over is forty steps, and
to write the result down is one call, of hours. So the bounds are those of the operating system.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from typing import TypeVar

import msgspec

from server.prompting.sandboxed_template import TemplateTooCostly, Variables
from server.prompting.template_child import MAX_COMPILE_CPU_S, MAX_CPU_S
from server.prompting.template_wire import HEADER, Answer, Compile, Compiled, Refused, Render, Rendered, pack

logger = logging.getLogger(__name__)

START_S = 60.0
MAX_WAIT_S = 20.0
"""Of the clock, on a machine that is busy: to start and compile, and to render. The limits proper are the child's."""

_READ_BYTES = 1 << 20


class TemplateProcess:
    """A child with one compiled template; replaced when it has died of a render. A `Renderer`.

    Raises:
        TemplateFailed: The template does not compile.
        TemplateTooCostly: Not within the limits.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self.variables = self._start()

    def render(self, variables: Variables) -> str:
        """Make a text.

        Raises:
            TemplateFailed: The template refuses these variables, or breaks.
            TemplateTooCostly: It goes beyond a limit.
        """
        message = pack(Render(dict(variables)))
        with self._lock:
            if self._child is not None and self._child.poll() is not None:
                self.close()  # it was killed while it had nothing to do
            if self._child is None:
                self._start()
            answer = self._ask(message, max_s=MAX_WAIT_S, max_cpu_s=MAX_CPU_S)
        return _expect(answer, Rendered).text

    def close(self) -> None:
        """Kill the child, if there is one."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                with contextlib.suppress(BrokenPipeError):  # what it will not read any more
                    assert pipe is not None
                    pipe.close()

    def _start(self) -> frozenset[str]:
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", "server.prompting.template_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            answer = self._ask(pack(Compile(self._source)), max_s=START_S, max_cpu_s=MAX_COMPILE_CPU_S)
            return frozenset(_expect(answer, Compiled).variables)
        except BaseException:
            self.close()
            raise

    def _ask(self, message: bytes, *, max_s: float, max_cpu_s: float) -> Answer:
        assert self._child is not None and self._child.stdin is not None
        try:
            self._child.stdin.write(message)
            self._child.stdin.flush()
            return _read(self._child, max_s)
        except OSError as exc:  # TimeoutError and BrokenPipeError among them
            is_slow = isinstance(exc, TimeoutError) or _ended_by(self._child) == -signal.SIGPROF
            self.close()
            logger.warning("a chat template broke the process that rendered it", extra={"reason": repr(exc)})
            raise TemplateTooCostly(
                f"it takes more than {max_cpu_s:g} s of processor time" if is_slow else "it breaks its process"
            ) from exc
        except BaseException:
            self.close()  # or its answer would be taken for that to the next request
            raise


def _ended_by(child: subprocess.Popen[bytes]) -> int | None:
    """Its return code, None if it does not end."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        return child.wait(START_S)
    return None


_Expected = TypeVar("_Expected", Compiled, Rendered)


def _expect(answer: Answer, kind: type[_Expected]) -> _Expected:
    if isinstance(answer, Refused):
        raise answer.error()
    assert isinstance(answer, kind)
    return answer


def _read(child: subprocess.Popen[bytes], max_s: float) -> Answer:
    """One message of the child.

    Raises:
        TimeoutError: It has not come in time.
        BrokenPipeError: It will not come: the child has ended.
    """
    assert child.stdout is not None
    deadline = time.monotonic() + max_s
    received = bytearray()
    while len(received) < HEADER.size or len(received) < HEADER.size + HEADER.unpack_from(received)[0]:
        readable, _, _ = select.select([child.stdout], [], [], max(0.0, deadline - time.monotonic()))
        if not readable:
            raise TimeoutError
        piece = os.read(child.stdout.fileno(), _READ_BYTES)
        if not piece:
            raise BrokenPipeError
        received += piece
    answer: Answer = msgspec.msgpack.decode(memoryview(received)[HEADER.size :], type=Answer)
    return answer
