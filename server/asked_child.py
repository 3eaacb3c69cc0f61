"""A child process that is asked one thing at a time, and ended if its answer does not come; and what both ends write.

A message is bytes behind their length. What they mean, its two ends know.
"""

from __future__ import annotations

import contextlib
import os
import select
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import IO

_HEADER = struct.Struct("<Q")
"""Bytes of the message that follows."""

_READ_BYTES = 1 << 20


class ChildEnded(Exception):
    """There will be no answer; `returncode` is as subprocess has it."""

    def __init__(self, returncode: int) -> None:
        super().__init__(f"the child ended with {returncode}")
        self.returncode = returncode


class AskedChild:
    """Whatever keeps an answer from being read ends the child: it would be taken for that to the next question.

    One thread at a time.

    Args:
        module: What it runs.
        stderr: As subprocess has it.
    """

    def __init__(self, module: str, *, stderr: int | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr
        )

    @property
    def is_ended(self) -> bool:
        """It must be replaced: it was closed, or ended of itself."""
        return self._process.poll() is not None

    def ask(self, question: bytes, *, max_s: float) -> memoryview:
        """Its answer. Raises as `hear`."""
        assert self._process.stdin is not None
        with self._closed_on_failure():
            write_message(self._process.stdin, question)
        return self.hear(max_s=max_s)

    def hear(self, *, max_s: float) -> memoryview:
        """Its next message, which it sends unasked when it has started.

        Raises:
            TimeoutError: It has not come in time.
            ChildEnded: It will not come.
        """
        with self._closed_on_failure():
            return self._read(time.monotonic() + max_s)

    def close(self) -> None:
        """Kill it; idempotent."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):  # what it will not read any more
                pipe.close()

    @contextlib.contextmanager
    def _closed_on_failure(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError as exc:
            self.close()  # which changes no return code: its pipes broke because it is ending
            raise ChildEnded(self._process.returncode) from exc
        except BaseException:
            self.close()
            raise

    def _read(self, deadline: float) -> memoryview:
        assert self._process.stdout is not None
        received = bytearray()
        while len(received) < _HEADER.size or len(received) < _HEADER.size + _HEADER.unpack_from(received)[0]:
            readable, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not readable:
                raise TimeoutError
            piece = os.read(self._process.stdout.fileno(), _READ_BYTES)
            if not piece:
                raise BrokenPipeError
            received += piece
        return memoryview(received)[_HEADER.size :]


# ---- both ends


def write_message(stream: IO[bytes], body: bytes) -> None:
    stream.write(_HEADER.pack(len(body)))
    stream.write(body)
    stream.flush()


# ---- the child's end


def read_messages(stream: IO[bytes]) -> Iterator[bytes]:
    """Until the parent closes its end."""
    while header := stream.read(_HEADER.size):
        yield stream.read(_HEADER.unpack(header)[0])
