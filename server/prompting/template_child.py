"""The process that renders one chat template: `python -m server.prompting.template_child`.

Reads a `Compile` and then `Render` after `Render` from standard input until it is closed, and answers each on standard
output. What goes beyond its limits does not get as far: the kernel ends the process for the processor time it takes,
whatever it is in the midst of, and gives it no more memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import resource
import signal
import sys
from collections.abc import Iterator
from typing import BinaryIO

import msgspec

from server.asked_child import read_messages, write_message
from server.prompting.sandboxed_template import SandboxedTemplate, TemplateFailed, TemplateTooCostly
from server.prompting.template_wire import Answer, Compile, Compiled, Refused, Render, Rendered

_PR_SET_PDEATHSIG = 1

MAX_CPU_S = 1.0
"""Of processor time for one render, so that a busy machine fails nobody; long conversations take a hundredth of it."""

MAX_COMPILE_CPU_S = 5.0

MAX_MEMORY_BYTES = 1 << 30
"""Of address space. The largest request needs a fifth of it."""

SPARE_CHARS = 1 << 20
CHARS_PER_BYTE = 8
"""What a text may have: so many characters, and for each byte of what the template was given so many more. JSON inside
JSON has every quote escaped twice; more than that no honest template makes."""


def main() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends the worker, and that ends this
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # should a template leave its sandbox, it can write no file
    _serve(sys.stdin.buffer, sys.stdout.buffer)


def _serve(messages: BinaryIO, answers: BinaryIO) -> None:
    bodies = read_messages(messages)
    try:
        with _limited_to(MAX_COMPILE_CPU_S):
            template = SandboxedTemplate(msgspec.msgpack.decode(next(bodies), type=Compile).source)
        answer: Answer = Compiled(sorted(template.variables))
    except (TemplateFailed, MemoryError) as exc:
        answer = _failure(exc)
    write_message(answers, msgspec.msgpack.encode(answer))
    for body in bodies:
        write_message(answers, msgspec.msgpack.encode(_render(template, body)))


def _render(template: SandboxedTemplate, body: bytes) -> Answer:
    try:
        variables = msgspec.msgpack.decode(body, type=Render).variables
        with _limited_to(MAX_CPU_S):
            return Rendered(template.render(variables, max_chars=SPARE_CHARS + CHARS_PER_BYTE * len(body)))
    except (TemplateFailed, MemoryError) as exc:
        return _failure(exc)


def _failure(exc: TemplateFailed | MemoryError) -> Refused:
    if isinstance(exc, MemoryError):
        return Refused(f"it takes more than {MAX_MEMORY_BYTES >> 20} MiB of memory", is_too_costly=True)
    return Refused(str(exc), is_too_costly=isinstance(exc, TemplateTooCostly))


@contextlib.contextmanager
def _limited_to(cpu_s: float) -> Iterator[None]:
    """End this process with SIGPROF, as nobody handles it, once it has computed for so long."""
    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


if __name__ == "__main__":
    main()
