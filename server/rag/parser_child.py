"""The process that reads files which may be broken or hostile: `python -m server.rag.parser_child LIMITS`.

Reads tasks from standard input until it is closed, writes answers to standard output. It has no network, writes no
file, starts no process, and ends with its parent. What it may cost is bounded by the kernel, except time, which the
parent keeps.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from server.rag.documents import ParsedDocument
from server.rag.parsing import ANSWER_HEADER, TASK_HEADER, ParseFailed, ParserLimits, ParseTask, Refused, pack

_PR_SET_PDEATHSIG = 1
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_FORBIDDEN = ("socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.remove", "os.rename")

Load = Callable[[Path, str, ParserLimits], ParsedDocument]


def run_child(load: Load) -> None:
    """Serve the parent until it hangs up, or until too much memory has stuck to this process."""
    limits = msgspec.json.decode(sys.argv[1], type=ParserLimits)
    with _take_over_pipes() as (tasks, answers):
        _leave_the_network()
        _bind_fate_to_parent()
        _bound_resources(limits)
        sys.addaudithook(_forbid)
        baseline = _virtual_bytes()
        is_last = False
        while not is_last and (task := _next_task(tasks)):
            _renew_cpu_limit(limits)
            answer = _answer(load, task, limits)
            is_last = _virtual_bytes() - baseline > limits.max_memory_bytes // 2
            answers.write(ANSWER_HEADER.pack(is_last, len(answer)))
            answers.write(answer)
            answers.flush()
    os._exit(0)  # nothing is worth being torn down


# ---- one file


def _answer(load: Load, task: ParseTask, limits: ParserLimits) -> bytes:
    try:
        return msgspec.msgpack.encode(pack(load(Path(task.path), task.filename, limits)))
    except Exception as exc:  # libraries meet a broken file with any error there is
        return msgspec.msgpack.encode(_refusal(exc, limits))


def _refusal(exc: Exception, limits: ParserLimits) -> Refused:
    """Without the words of unforeseen errors, which may quote the document."""
    name = type(exc).__name__
    match exc:
        case ParseFailed():
            return Refused(exc.code, exc.message)
        case MemoryError():
            most = limits.max_memory_bytes >> 20
            return Refused("invalid_file", f"reading the file needs more than {most} MB of memory; split it")
        case RecursionError():
            return Refused("invalid_file", "the file is nested too deeply to be read")
        case ImportError() | OSError(errno=errno.ENOENT | errno.EACCES | errno.EIO | errno.EMFILE | errno.ENFILE):
            message = f"the server cannot read the file ({name}); details are in its log"
            return Refused("server_error", message, _place_of(exc))
        case _:
            message = f"the file is damaged, or holds what the parser does not know ({name})"
            return Refused("invalid_file", message, _place_of(exc))


def _place_of(exc: Exception) -> str:
    frame = traceback.extract_tb(exc.__traceback__)[-1]
    return f"{type(exc).__name__} at {'/'.join(Path(frame.filename).parts[-3:])}:{frame.lineno}"


# ---- pipes


@contextlib.contextmanager
def _take_over_pipes() -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """Our ends of the pipes. What libraries print goes nowhere: it would be taken for an answer, or for a log line."""
    logging.disable()
    with os.fdopen(os.dup(0), "rb") as tasks, os.fdopen(os.dup(1), "wb") as answers:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1):
            os.dup2(nowhere, standard)
        yield tasks, answers


def _next_task(tasks: BinaryIO) -> ParseTask | None:
    """Wait for a task; None if the parent has hung up, or died."""
    header = tasks.read(TASK_HEADER.size)
    if len(header) < TASK_HEADER.size:
        return None
    (size,) = TASK_HEADER.unpack(header)
    return msgspec.msgpack.decode(tasks.read(size), type=ParseTask)


# ---- confinement


def _leave_the_network() -> None:
    """Move to a network namespace without interfaces, where the kernel lets us: root may at once, others through a
    user namespace of their own. Where neither is allowed `_forbid` stands alone."""
    unshare = ctypes.CDLL(None).unshare
    if unshare(_CLONE_NEWNET) != 0:
        unshare(_CLONE_NEWUSER | _CLONE_NEWNET)


def _bind_fate_to_parent() -> None:
    """Die with the parent, before anybody else when memory runs out, and never by a signal to the parent's group.

    Whoever lost the parent before this was asked for finds its pipe closed.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for polite in (signal.SIGINT, signal.SIGTERM):
        signal.signal(polite, signal.SIG_IGN)
    with contextlib.suppress(OSError):  # a masked or read-only /proc
        Path("/proc/self/oom_score_adj").write_text("1000")


def _bound_resources(limits: ParserLimits) -> None:
    # What libraries have reserved but not touched is no memory yet; what is resident counts.
    resident = _pages(1)
    resource.setrlimit(resource.RLIMIT_AS, (_virtual_bytes() - resident + limits.max_memory_bytes,) * 2)
    for none_at_all in (resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC, resource.RLIMIT_CORE):
        resource.setrlimit(none_at_all, (0, 0))


def _renew_cpu_limit(limits: ParserLimits) -> None:
    """Should the parent be stopped and not keep the time: a file gets no more of the processor than of the clock."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime + limits.timeout_s) + 2, hard))


def _forbid(event: str, args: tuple[Any, ...]) -> None:
    """Refuse what no file has to make us do. For Python code only, hence the limits of the kernel besides."""
    if event.startswith(_FORBIDDEN) or (event == "open" and args[2] & os.O_ACCMODE != os.O_RDONLY):
        raise PermissionError(f"a parser must not do this: {event}")


def _virtual_bytes() -> int:
    return _pages(0)


def _pages(field: int) -> int:
    """A field of /proc/self/statm, in bytes: 0 is address space, 1 is resident memory."""
    return int(Path("/proc/self/statm").read_text().split()[field]) * resource.getpagesize()


if __name__ == "__main__":
    from server.rag.loaders.load import load

    run_child(load)
