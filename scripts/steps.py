"""Numbered steps with their seconds, and children that write to a log. On a terminal progress is one live line."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TextIO

Describe = Callable[[str], "str | None"]
"""Turns a line of a child's output into what to show as progress; None keeps what is shown."""

_INDENT = " " * 6
_PLAIN_INTERVAL_S = 15
_LIVE_INTERVAL_S = 0.2
_TAIL_LINES = 30


class SetupError(Exception):
    """Set-up cannot go on. The message says what happened and what to do."""


class Steps:
    """Prints `[1/5] title ... result, 2.1 s`; what happens within a step comes indented between the two."""

    def __init__(self, num_steps: int, out: TextIO = sys.stdout) -> None:
        self.result = "done"
        self._num_steps = num_steps
        self._number = 0
        self._out = out
        self._line_is_open = False

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[Steps]:
        """Run one step. Its body may set `result`, and call `note` and `run`."""
        self._number += 1
        self.result = "done"
        self._write(f"[{self._number}/{self._num_steps}] {title} ... ")
        self._line_is_open = True
        started = time.monotonic()
        try:
            yield self
        except BaseException:
            self._end_line()
            raise
        indent = "" if self._line_is_open else _INDENT
        self._line_is_open = False
        self._write(f"{indent}{self.result}, {time.monotonic() - started:.1f} s\n")

    def note(self, text: str) -> None:
        self._end_line()
        self._write(f"{_INDENT}{text}\n")

    def run(
        self, argv: Sequence[str], *, what: str, log: Path, describe: Describe, env: Mapping[str, str] | None = None
    ) -> None:
        """Run a child to its end, its output in `log`, showing progress. It dies with us.

        Args:
            what: What is being done, for messages: `building llama-cpp-python`.
            env: Variables to add to ours.

        Raises:
            SetupError: The child failed; carries the end of the log and its path.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w") as output, log.open(encoding="utf-8", errors="replace") as lines:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                start_new_session=True,  # so that an interrupted set-up can end compilers and all
            )
            try:
                self._follow(process, what, lines, describe)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGTERM)
                    process.wait()
        if process.returncode != 0:
            tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:]
            raise SetupError("\n".join([*tail, f"{what} failed (exit {process.returncode}); the whole log is {log}"]))

    def _follow(self, process: subprocess.Popen[bytes], what: str, lines: TextIO, describe: Describe) -> None:
        shown = what
        started = last_shown = time.monotonic()
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=_LIVE_INTERVAL_S)
            for line in lines:  # what the log has grown by
                shown = describe(line) or shown
            now = time.monotonic()
            if self._out.isatty():
                self._show_live(f"{shown} ({now - started:.0f} s)")
            elif now - last_shown >= _PLAIN_INTERVAL_S:
                self.note(f"{shown} ({now - started:.0f} s)")
                last_shown = now
        if self._out.isatty():
            self._write("\r\033[K")

    def _show_live(self, text: str) -> None:
        self._end_line()
        width = os.get_terminal_size(self._out.fileno()).columns - len(_INDENT) - 1
        self._write(f"\r{_INDENT}{text[: max(width, 20)]}\033[K")

    def _end_line(self) -> None:
        if self._line_is_open:
            self._line_is_open = False
            self._write("\n")

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()
