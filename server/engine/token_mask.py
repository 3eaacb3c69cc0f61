"""Which tokens may come next of a sequence with a grammar, computed beside the model instead of in its way.

When a token has been picked, the grammar reads it and works out what may follow, on a thread of its own, while the
model computes that token; sampling waits only for a mask that is late. llguidance needs microseconds for most masks and
milliseconds for the worst that its limits allow, and holds Python's lock for neither.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher

from server.engine.deep_thread import deep_thread
from server.errors import InternalError, InvalidRequest
from server.types import Failed, TokenIds

logger = logging.getLogger(__name__)

Offsets = npt.NDArray[np.float32]
"""What is added to the logit of each token: 0 if it may come next, else -inf."""

_SOUND_ENDS = ("NotStopped", "NoExtension", "EndOfSentence")
"""Why a matcher stops when all is well: its text is complete."""

BURST_S = 0.5
S_PER_TOKEN = 0.005
"""What the masks of one sequence may cost: so much at once, and so much more with each token. Of processor time, that a
busy machine fails nobody; common masks take a fiftieth of it. What one sequence's cost, all others wait for."""

_OFFSETS_OF_OCTET: Offsets = np.where(
    np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little"), 0, -np.inf
).astype(np.float32)
"""[256, 8]: what eight bits of a mask mean."""

_BUG = "InternalError"
"""Why one stops that was given a token which it did not allow, or that panicked."""


@dataclass(eq=False)
class CompiledGrammar:
    """A grammar at its beginning, for any number of sequences.

    Attributes:
        matcher: Copied, never changed. The copies share what they find out about the grammar.
        offsets: Of the first token.
        is_spoiled: A mask has failed, maybe for what the copies share: whoever comes next has to compile it again.
    """

    matcher: LLMatcher
    offsets: Offsets
    is_spoiled: bool = False

    @classmethod
    def begin(cls, matcher: LLMatcher, vocab_size: int) -> CompiledGrammar:
        """Compute the first mask; what the matcher says of errors is for the caller to look at."""
        offsets = np.empty(-(-vocab_size // 32) * 32, np.float32)
        _compute(matcher, offsets)
        return cls(matcher, offsets[:vocab_size])


class TokenMask:
    """Which tokens the grammar of one sequence allows.

    The engine's thread calls `accept` and reads the attributes; `advance` runs on the thread of `TokenMasks`, never at
    the same time.

    Attributes:
        offsets: Of the next token; where nothing but end tokens is allowed, the text is complete.
        failure: Why the grammar cannot go on, else None. Then no token is allowed.
    """

    def __init__(self, compiled: CompiledGrammar, *, param: str) -> None:
        self._compiled = compiled
        self._matcher = compiled.matcher.deep_copy()
        self._param = param
        self._unread: TokenIds = []
        self._left_s = BURST_S
        self.offsets = compiled.offsets
        self._own_offsets = np.empty(-(-len(self.offsets) // 32) * 32, np.float32)
        self.failure: Failed | None = None

    @property
    def is_behind(self) -> bool:
        """Whether tokens have been accepted since `advance` was last called."""
        return bool(self._unread)

    def accept(self, token_id: int) -> None:
        """Take note that a token has been appended to the sequence."""
        self._unread.append(token_id)

    def advance(self) -> None:
        """Read the accepted tokens, and compute what may come next. Never raises."""
        started_s = time.thread_time()
        try:
            self._matcher.consume_tokens(self._unread)
            self._unread = []
            _compute(self._matcher, self._own_offsets)
            self.offsets = self._own_offsets[: len(self.offsets)]
            reason = self._matcher.stop_reason()
            if self._matcher.is_error() or reason not in _SOUND_ENDS:
                self._fail(reason, self._matcher.get_error())
            self._left_s += S_PER_TOKEN - (time.thread_time() - started_s)
            if self._left_s < 0:
                self._fail("too much time for each token", "")
        except BaseException as exc:  # what Rust panics with is no Exception, and must not reach other sequences
            self._fail(_BUG, repr(exc))

    def _fail(self, reason: str, details: str) -> None:
        self._compiled.is_spoiled = True
        self.offsets = np.full_like(self.offsets, -np.inf)
        if reason == _BUG:
            logger.error("mask could not be computed", extra={"reason": details[:500]})
            self.failure = Failed(InternalError.code, "internal error; the server's log has details")
        else:
            message = f"the grammar cannot be followed any further ({reason}); simplify it"
            self.failure = Failed(InvalidRequest.code, message, self._param)


class TokenMasks:
    """Advances the masks of one engine, while it does something else. One thread calls both methods."""

    def __init__(self) -> None:
        self._pending: Future[None] | None = None

    def prepare(self, masks: Sequence[TokenMask]) -> None:
        """Begin to advance these masks; they are nobody else's until `wait` returns."""
        self.wait()
        if masks:
            self._pending = self._thread.submit(_advance, masks)

    def wait(self) -> None:
        """Return when all masks are as they should be; at once if nothing was begun."""
        if self._pending is not None:
            self._pending.result()
            self._pending = None

    @cached_property
    def _thread(self) -> ThreadPoolExecutor:
        return deep_thread("masks")


def _advance(masks: Sequence[TokenMask]) -> None:
    for mask in masks:
        mask.advance()


def _compute(matcher: LLMatcher, into: Offsets) -> None:
    """Write the next mask. Its bits come in words of 32, and there may be a word more than the tokens need.

    NOTE: of a matcher that has failed, it allows end tokens: look at its error.
    """
    octets = np.frombuffer(matcher.compute_bitmask(), np.uint8, count=len(into) // 8)
    np.take(_OFFSETS_OF_OCTET, octets, axis=0, out=into.reshape(-1, 8), mode="clip")  # clipping nothing, but quicker
