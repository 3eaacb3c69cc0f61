"""Tries out grammars in a child process, which is killed if one takes too long, and replaced."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import subprocess
import sys
import time

import msgspec

from server.engine.grammar_text import READY, Outcome, Trial

logger = logging.getLogger(__name__)

START_S = 60.0
"""What a child may take to start on a busy machine; a second is usual."""

_READ_BYTES = 1 << 16


class GrammarTrials:
    """One child, started for the first grammar. One thread at a time.

    Args:
        max_s: What a grammar may take.
    """

    def __init__(self, *, max_s: float) -> None:
        self._max_s = max_s
        self._child: subprocess.Popen[bytes] | None = None

    def run(self, trial: Trial) -> Outcome:
        """Try a grammar out; if that ends the child, the outcome says so."""
        if self._child is None:
            self._child = _start()
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(msgspec.json.encode(trial) + b"\n")
            self._child.stdin.flush()
            return _read(self._child, self._max_s)
        except TimeoutError:
            self.close()
            return Outcome(reason=f"it takes longer than {self._max_s:g} s to compile; make it simpler")
        except OSError:
            self.close()
            logger.warning("a grammar broke the process that tried it out")
            return Outcome(reason="it is too complex")

    def close(self) -> None:
        """Kill the child, if there is one."""
        if self._child is not None:
            _end(self._child)
            self._child = None


def _start() -> subprocess.Popen[bytes]:
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "server.engine.grammar_child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # where Rust says that it panicked
    )
    try:
        assert _read(child, START_S) == READY
    except BaseException:
        _end(child)
        raise
    return child


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    with contextlib.suppress(BrokenPipeError):  # what it will not read any more
        child.communicate()


def _read(child: subprocess.Popen[bytes], max_s: float) -> Outcome:
    """One line of the child.

    Raises:
        TimeoutError: It has not come in time.
        BrokenPipeError: It will not come: the child has ended.
    """
    assert child.stdout is not None
    deadline = time.monotonic() + max_s
    line = b""
    while not line.endswith(b"\n"):
        readable, _, _ = select.select([child.stdout], [], [], max(0.0, deadline - time.monotonic()))
        if not readable:
            raise TimeoutError
        piece = os.read(child.stdout.fileno(), _READ_BYTES)
        if not piece:
            raise BrokenPipeError
        line += piece
    return msgspec.json.decode(line, type=Outcome)
