"""Reads files in processes of their own, so that a file which breaks its reader breaks nothing else.

Knows no format: `server.rag.loaders` does, which only the child imports.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from server.rag.documents import ParsedDocument
from server.rag.parsing import (
    ANSWER_HEADER,
    TASK_HEADER,
    Parsed,
    ParseFailed,
    ParserLimits,
    ParseTask,
    Refused,
    max_answer_bytes,
    unpack,
)

logger = logging.getLogger(__name__)

IDLE_S = 30.0
"""A child that has had nothing to do for so long is ended: it may hold half of what it is allowed."""

_READ_BYTES = 1 << 20
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPATH", "TZ")

_DEFAULT_LIMITS = ParserLimits()


class Parser:
    """Up to `num_workers` children, started when there is something to read. Belongs to one event loop.

    A child serves one file after another. It is replaced when it has died, has been killed for the time it took, or
    holds on to much memory.
    """

    def __init__(
        self,
        limits: ParserLimits = _DEFAULT_LIMITS,
        *,
        num_workers: int = 1,
        module: str = "server.rag.parser_child",
    ) -> None:
        self._limits = limits
        self._num_workers = num_workers
        self._module = module
        self._slots = asyncio.Semaphore(num_workers)
        self._busy: set[_Child] = set()
        self._idle: dict[_Child, asyncio.TimerHandle] = {}
        self._endings: set[asyncio.Task[None]] = set()
        self._is_closed = False

    async def parse(self, path: Path, filename: str) -> ParsedDocument:
        """Read a file. Waits for a free child; cancelling kills the one that is at work.

        Args:
            path: Where it is.
            filename: What its owner called it: the extension tells what the content does not.

        Raises:
            ParseFailed: It cannot be read; the message says why.
        """
        async with self._slots:
            child = await self._take()
            serves_on = False
            try:
                answer, serves_on = await child.ask(ParseTask(str(path), filename))
            finally:
                await self._put_back(child, serves_on=serves_on)
        return await asyncio.to_thread(_document_of, answer)

    async def close(self) -> None:
        """Kill the children, and wait until they are gone. Cancel first what must not fail."""
        self._is_closed = True
        for child in self._busy:
            child.kill()
        for child, timer in list(self._idle.items()):
            timer.cancel()
            self._dismiss(child)
        await asyncio.gather(*self._endings)
        for _ in range(self._num_workers):  # whoever had a child has ended it once its slot is free
            await self._slots.acquire()
        for _ in range(self._num_workers):
            self._slots.release()

    async def _take(self) -> _Child:
        child = await self._idle_child() or await _Child.start(self._module, self._limits)
        if self._is_closed:  # perhaps only since the child is starting
            await child.end()
            raise ParseFailed("server_error", "the server is stopping; try again")
        self._busy.add(child)
        return child

    async def _idle_child(self) -> _Child | None:
        """The one that was busy last, so that those too many stay idle, and end."""
        while self._idle:
            child, timer = self._idle.popitem()
            timer.cancel()
            if child.is_alive:
                return child
            await child.end()
        return None

    async def _put_back(self, child: _Child, *, serves_on: bool) -> None:
        self._busy.remove(child)
        if serves_on and not self._is_closed:
            self._idle[child] = asyncio.get_running_loop().call_later(IDLE_S, self._dismiss, child)
        else:
            await child.end()

    def _dismiss(self, child: _Child) -> None:
        del self._idle[child]
        ending = asyncio.create_task(child.end())
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)


class _Child:
    """A running child: asked one thing at a time, and not any more after an error."""

    def __init__(self, process: asyncio.subprocess.Process, limits: ParserLimits) -> None:
        assert process.stdin is not None and process.stdout is not None
        self._process = process
        self._tasks, self._answers = process.stdin, process.stdout
        self._limits = limits

    @classmethod
    async def start(cls, module: str, limits: ParserLimits) -> _Child:
        command = [sys.executable, "-P", "-B", "-W", "ignore", "-m", module, msgspec.json.encode(limits).decode()]
        # One thread, one heap: each further one would reserve address space, of which a child has little.
        single = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
        environ = {name: os.environ[name] for name in _PASSED_ON if name in os.environ} | single
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=pipe, stdout=pipe, limit=_READ_BYTES, env=environ
            )
        except OSError as exc:
            logger.error("parser does not start", extra={"error": str(exc)})
            raise ParseFailed("server_error", "no process could be started to read the file; try again later") from exc
        return cls(process, limits)

    @property
    def is_alive(self) -> bool:
        """Asked of the kernel: asyncio learns of an end some time later."""
        try:
            return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        except ChildProcessError:
            return False

    async def ask(self, task: ParseTask) -> tuple[list[bytes], bool]:
        """Have a file read: the answer in pieces, to be decoded elsewhere, and whether the child serves on.

        Raises:
            ParseFailed: There is no answer.
        """
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                return await self._exchange(task)
        except TimeoutError:
            message = f"reading the file took more than {self._limits.timeout_s:g} s; split it, or make it simpler"
            raise ParseFailed("invalid_file", message) from None
        except (asyncio.IncompleteReadError, ConnectionError):
            await self.end()
            raise self._obituary() from None

    def kill(self) -> None:
        if self._process.returncode is None:
            # Not by asyncio: its `kill` asks first whether the process has ended, and may take the answer, which is
            # why it ended, from where asyncio waits for it.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)

    async def end(self) -> None:
        """Kill it, and wait until it is gone. Nobody may be asking."""
        self.kill()
        while await self._answers.read(_READ_BYTES):
            pass  # asyncio sees the end of a process only when its pipes are empty
        await self._process.wait()

    async def _exchange(self, task: ParseTask) -> tuple[list[bytes], bool]:
        content = msgspec.msgpack.encode(task)
        self._tasks.write(TASK_HEADER.pack(len(content)) + content)
        await self._tasks.drain()
        is_last, size = ANSWER_HEADER.unpack(await self._answers.readexactly(ANSWER_HEADER.size))
        if size > max_answer_bytes(self._limits):
            raise _nonsense(f"an answer of {size} bytes")
        return await self._read(size), not is_last

    async def _read(self, size: int) -> list[bytes]:
        """Read so much, never moving more than a piece of it at once: there may be 64 MB."""
        pieces = []
        while size:
            pieces.append(await self._answers.read(min(size, _READ_BYTES)))
            size -= len(pieces[-1])
            if not pieces[-1]:
                raise asyncio.IncompleteReadError(b"", size)
        return pieces

    def _obituary(self) -> ParseFailed:
        code = self._process.returncode
        assert code is not None
        ending = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        logger.warning("parser died", extra={"ending": ending})
        if code == -signal.SIGKILL:  # by whoever cares for memory, or by the administrator
            return ParseFailed("server_error", "the process that read the file was killed; try again later")
        return ParseFailed("invalid_file", f"the file broke the process that read it ({ending}); it may be damaged")


def _document_of(answer: Sequence[bytes]) -> ParsedDocument:
    """Decode an answer. For a thread.

    Raises:
        ParseFailed: It is a refusal, or nonsense.
    """
    try:
        decoded = msgspec.msgpack.decode(b"".join(answer), type=Parsed | Refused)
        if isinstance(decoded, Parsed):
            return unpack(decoded)
    except (msgspec.DecodeError, ValueError) as exc:
        raise _nonsense(str(exc)) from exc
    if decoded.place:
        logger.warning("parser met an unforeseen error", extra={"place": decoded.place})
    raise ParseFailed(decoded.code, decoded.message)


def _nonsense(what: str) -> ParseFailed:
    logger.error("parser answered nonsense", extra={"what": what})
    return ParseFailed("server_error", "the process that read the file gave no sensible answer; details are in the log")
