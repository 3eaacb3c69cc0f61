"""Renders a chat template in a child process: whatever it does there, the worker waits for seconds at most.

Nothing inside a process can bound a template. Steps may be counted, but `[x, x]` forty times over is forty steps, and
to write the result down is one call, of hours. So the bounds are those of the operating system.
"""

from __future__ import annotations

import logging
import signal
import threading
from typing import TypeVar

import msgspec

from server.asked_child import AskedChild, ChildEnded
from server.prompting.sandboxed_template import TemplateTooCostly, Variables
from server.prompting.template_child import MAX_COMPILE_CPU_S, MAX_CPU_S
from server.prompting.template_wire import Answer, Compile, Compiled, Refused, Render, Rendered

logger = logging.getLogger(__name__)

START_S = 60.0
MAX_WAIT_S = 20.0
"""Of the clock, on a machine that is busy: to start and compile, and to render. The limits proper are the child's."""


class TemplateProcess:
    """A child with one compiled template; replaced when it has died. A `Renderer`.

    Raises:
        TemplateFailed: The template does not compile.
        TemplateTooCostly: Not within the limits.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._child, self.variables = self._start()

    def render(self, variables: Variables) -> str:
        """Make a text.

        Raises:
            TemplateFailed: The template refuses these variables, or breaks.
            TemplateTooCostly: It goes beyond a limit.
        """
        message = msgspec.msgpack.encode(Render(dict(variables)))
        with self._lock:
            if self._child.is_ended:
                self._child.close()
                self._child, _ = self._start()
            answer = _ask(self._child, message, max_s=MAX_WAIT_S, max_cpu_s=MAX_CPU_S)
        return _expect(answer, Rendered).text

    def close(self) -> None:
        """Kill the child."""
        self._child.close()

    def _start(self) -> tuple[AskedChild, frozenset[str]]:
        child = AskedChild("server.prompting.template_child")
        try:
            message = msgspec.msgpack.encode(Compile(self._source))
            answer = _ask(child, message, max_s=START_S, max_cpu_s=MAX_COMPILE_CPU_S)
            return child, frozenset(_expect(answer, Compiled).variables)
        except BaseException:
            child.close()
            raise


def _ask(child: AskedChild, message: bytes, *, max_s: float, max_cpu_s: float) -> Answer:
    try:
        answer: Answer = msgspec.msgpack.decode(child.ask(message, max_s=max_s), type=Answer)
    except (TimeoutError, ChildEnded) as exc:
        is_slow = isinstance(exc, TimeoutError) or exc.returncode == -signal.SIGPROF
        logger.warning("a chat template broke the process that rendered it", extra={"reason": repr(exc)})
        raise TemplateTooCostly(
            f"it takes more than {max_cpu_s:g} s of processor time" if is_slow else "it breaks its process"
        ) from exc
    return answer


_Expected = TypeVar("_Expected", Compiled, Rendered)


def _expect(answer: Answer, kind: type[_Expected]) -> _Expected:
    if isinstance(answer, Refused):
        raise answer.error()
    assert isinstance(answer, kind)
    return answer
