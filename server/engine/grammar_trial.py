"""Tries out grammars in a child process, which is killed if one takes too long, and replaced."""

from __future__ import annotations

import logging
import subprocess

import msgspec

from server.asked_child import AskedChild, ChildEnded
from server.engine.grammar_text import READY, Outcome, Trial

logger = logging.getLogger(__name__)

START_S = 60.0
"""What a child may take to start on a busy machine; a second is usual."""


class GrammarTrials:
    """One child, started for the first grammar. One thread at a time.

    Args:
        max_s: What a grammar may take.
    """

    def __init__(self, *, max_s: float) -> None:
        self._max_s = max_s
        self._child: AskedChild | None = None

    def run(self, trial: Trial) -> Outcome:
        """Try a grammar out; if that ends the child, the outcome says so."""
        if self._child is None or self._child.is_ended:
            self.close()
            self._child = _start()
        try:
            return _outcome(self._child.ask(msgspec.json.encode(trial), max_s=self._max_s))
        except TimeoutError:
            return Outcome(reason=f"it takes longer than {self._max_s:g} s to compile; make it simpler")
        except ChildEnded:
            logger.warning("a grammar broke the process that tried it out")
            return Outcome(reason="it is too complex")

    def close(self) -> None:
        """Kill the child, if there is one."""
        if self._child is not None:
            self._child.close()


def _start() -> AskedChild:
    # stderr is where Rust says that it panicked
    child = AskedChild("server.engine.grammar_child", stderr=subprocess.DEVNULL)
    assert _outcome(child.hear(max_s=START_S)) == READY
    return child


def _outcome(message: memoryview) -> Outcome:
    return msgspec.json.decode(message, type=Outcome)
