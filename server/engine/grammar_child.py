"""The process that tries out grammars which may be hostile: `python -m server.engine.grammar_child`.

Compilers take time that no limit of theirs bounds, and are brought down by what nobody thought of; so here they may be
killed. Reads a `Trial` after the other from standard input until it is closed, and answers each with an `Outcome`.
"""

from __future__ import annotations

import ctypes
import re
import resource
import signal
import sys
from typing import BinaryIO

import msgspec
from llguidance import LLMatcher, LLTokenizer

from server.asked_child import read_messages, write_message
from server.engine.deep_thread import deep_thread
from server.engine.grammar_text import LIMITS, READY, NoGrammar, Outcome, Trial, reason_of, to_llguidance

_PR_SET_PDEATHSIG = 1

MAX_MEMORY_BYTES = 2 << 30
"""Of address space."""

_TOKEN_ID = re.compile(r"<\[[0-9]+\]>")


def try_out(trial: Trial, bytes_only: LLTokenizer) -> Outcome:
    """Compile a grammar, and compute its first mask."""
    try:
        source = to_llguidance(trial.grammar, trial.content)
    except NoGrammar as exc:
        return Outcome(reason=str(exc))
    # Control tokens have other ids than bytes. It does no harm where the same stands in somebody's text.
    known = _TOKEN_ID.sub("<[0]>", source)
    matcher = LLMatcher(bytes_only, known, log_level=0, limits=LIMITS)
    if not matcher.is_error():
        matcher.compute_bitmask()
    return Outcome(reason=reason_of(matcher)) if matcher.is_error() else Outcome(source)


def main() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    deep_thread("trials").submit(_serve, sys.stdin.buffer, sys.stdout.buffer).result()


def _serve(trials: BinaryIO, answers: BinaryIO) -> None:
    bytes_only = LLTokenizer("byte")
    _answer(answers, READY)
    for body in read_messages(trials):
        _answer(answers, try_out(msgspec.json.decode(body, type=Trial), bytes_only))


def _answer(answers: BinaryIO, outcome: Outcome) -> None:
    write_message(answers, msgspec.json.encode(outcome))


if __name__ == "__main__":
    main()
