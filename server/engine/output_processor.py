"""Generated token ids to stream events: text, stop strings, endings.

Runs on a thread of its own, one step behind the engine, which computes the next tokens meanwhile. So the engine knows
no text: it ends a sequence at an end token or at its limit, and here ends what says a stop string.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Protocol

from msgspec import structs

from server.engine.detokenizer import Detokenizer
from server.engine.engine import TokenOutput
from server.engine.logprobs import Ranking
from server.engine.sequence import Sequence
from server.engine.token_trail import Span, TokenTrail
from server.errors import InternalError
from server.types import Delta, Failed, Finished, StreamEvent, TokenChance, TokenIds, TokenLogprob

logger = logging.getLogger(__name__)

Output = tuple[str, StreamEvent]
"""(request_id, event)"""


class AnswerReader(Protocol):
    """Finds content, reasoning and tool calls in the text of one answer."""

    @property
    def is_reasoning(self) -> bool:
        """What comes next is reasoning, as far as it is known yet."""

    @property
    def num_calls(self) -> int:
        """Calls that have begun to be delivered."""

    @property
    def is_full(self) -> bool:
        """Nothing that follows would be taken."""

    @property
    def num_settled(self) -> int:
        """Characters of the text of which it is known that they are, or are not, content."""

    def take_spans(self) -> Seq[Span]:
        """Where the content that was delivered since the last time stands in the text, in order."""

    def push(self, text: str) -> Delta | None:
        """Read more text; None where nothing can be said yet."""

    def finish(self) -> Delta | None:
        """Read what was held back, at the end of the text."""


@dataclass(slots=True)
class _Stream:
    sequence: Sequence
    detokenizer: Detokenizer
    reader: AnswerReader | None
    trail: TokenTrail | None  # where the request wants log probabilities
    num_tokens: int = 0  # those seen here; the engine may be ahead
    num_told: int = 0  # those that a delta has counted
    num_reasoning_tokens: int = 0


class OutputProcessor:
    """Keeps the text of every live request, and sees to it that its stream ends exactly once.

    `open`, `close` and `is_awaited` may be called from any thread; `process` from one only.

    Args:
        abort: Makes the engine drop a request that has said a stop string; called by `process`.
        is_end: Whether a token ends a text, and so is none of it.
        names: Bytes that stand for each token where it is named, control tokens included; by default none.
    """

    def __init__(self, abort: Callable[[str], None], *, is_end: Callable[[int], bool], names: Seq[bytes] = ()) -> None:
        self._abort = abort
        self._is_end = is_end
        self._names = names
        self._streams: dict[str, _Stream] = {}

    def open(self, sequence: Sequence, detokenizer: Detokenizer, reader: AnswerReader | None = None) -> None:
        """Expect tokens of a sequence; before the engine has it. Without a reader, all text is content."""
        wants_logprobs = sequence.sampler_state.params.num_logprobs is not None
        trail = TokenTrail() if wants_logprobs else None
        self._streams[sequence.request_id] = _Stream(sequence, detokenizer, reader, trail)

    def close(self, request_id: str) -> None:
        """Expect no more of a request that was aborted; what the engine still says about it is ignored."""
        self._streams.pop(request_id, None)

    def is_awaited(self, outputs: list[TokenOutput]) -> bool:
        """Whether they begin or end an answer, so that somebody notices when they come."""
        return any(ending or self._has_said_nothing(request_id) for request_id, _, ending in outputs)

    def process(self, outputs: list[TokenOutput]) -> list[Output]:
        """Turn the tokens of a step into events, in order."""
        events: list[Output] = []
        for request_id, token_ids, ending in outputs:
            stream = self._streams.get(request_id)
            if stream is None:
                continue
            try:
                deltas, end = self._answer_all(stream, token_ids, ending)
            except Exception:
                # The loop must survive a bug: this request ends, with the traceback in the log, and the others go on.
                logger.exception("text could not be made", extra={"request_id": request_id})
                deltas, end = [], Failed(InternalError.code, "internal error; the server's log has details")
                self._abort(request_id)
            events += [(request_id, delta) for delta in deltas]
            if end:
                events.append((request_id, end))
                self.close(request_id)
        return events

    def _has_said_nothing(self, request_id: str) -> bool:
        stream = self._streams.get(request_id)
        return stream is not None and not stream.num_tokens

    def _answer_all(
        self, stream: _Stream, token_ids: TokenIds, ending: Finished | Failed | None
    ) -> tuple[list[Delta], Finished | Failed | None]:
        """What the tokens of a step add to the answer: together or, to tell whose text is whose, one by one."""
        if stream.trail is None:
            found, end = self._answer(stream, token_ids, ending)
            return _counted(stream, found), end
        all_deltas: list[Delta] = []
        end = None
        for each, ending_then in _one_by_one(token_ids, ending):
            found, end = self._answer(stream, each, ending_then)
            all_deltas += _counted(stream, found)
            if end:
                break
        return all_deltas, end

    def _answer(
        self, stream: _Stream, token_ids: TokenIds, ending: Finished | Failed | None
    ) -> tuple[list[Delta | None], Finished | Failed | None]:
        """What the tokens add to the answer, and its ending."""
        reader = stream.reader
        was_reasoning = reader is not None and reader.is_reasoning
        num_before = stream.num_tokens
        text, end = self._read(stream, token_ids, ending)
        if reader is None:
            return [_with_logprobs(stream, Delta(text)) if text else None], end
        if was_reasoning:
            stream.num_reasoning_tokens += stream.num_tokens - num_before  # without those behind a stop string
        deltas = [_with_logprobs(stream, reader.push(text))]
        if end is None and reader.is_full:
            end = self._stop(stream, is_over=False)
        if isinstance(end, Finished):
            deltas.append(_with_logprobs(stream, reader.finish()))
            usage = structs.replace(end.usage, reasoning_tokens=stream.num_reasoning_tokens)
            is_calling = end.reason == "stop" and reader.num_calls > 0
            end = structs.replace(end, reason="tool_calls" if is_calling else end.reason, usage=usage)
        return deltas, end

    def _read(
        self, stream: _Stream, token_ids: TokenIds, ending: Finished | Failed | None
    ) -> tuple[str, Finished | Failed | None]:
        """The text that the tokens add, and the ending: the engine's, or that of a stop string before it."""
        detokenizer = stream.detokenizer
        text = ""
        for token_id in token_ids:
            stream.num_tokens += 1
            if not self._is_end(token_id):
                text += self._push(stream, token_id)
            if detokenizer.stopped:
                return text, self._stop(stream, is_over=ending is not None)
        if isinstance(ending, Finished):
            rest = detokenizer.flush()
            if stream.trail:
                stream.trail.num_released += len(rest)
            text += rest
            if detokenizer.stopped:
                return text, self._stop(stream, is_over=True)
        return text, ending

    def _push(self, stream: _Stream, token_id: int) -> str:
        detokenizer, trail = stream.detokenizer, stream.trail
        if trail is None:
            return detokenizer.push(token_id)
        ranking = stream.sequence.sampler_state.rankings.pop(stream.num_tokens - 1)
        trail.add(self._logprob_of(token_id, ranking), num_held=detokenizer.num_held)
        text = detokenizer.push(token_id)
        trail.num_released += len(text)
        return text

    def _logprob_of(self, token_id: int, ranking: Ranking) -> TokenLogprob:
        top = tuple(TokenChance(self._names[each], logprob) for each, logprob in ranking.top)
        return TokenLogprob(TokenChance(self._names[token_id], ranking.logprob), top)

    def _stop(self, stream: _Stream, *, is_over: bool) -> Finished:
        sequence = stream.sequence
        if not is_over:
            self._abort(sequence.request_id)
        usage = structs.replace(sequence.usage, completion_tokens=stream.num_tokens)
        return Finished("stop", usage, stop_text=stream.detokenizer.stop_text, timings=sequence.timings)


def _counted(stream: _Stream, found: list[Delta | None]) -> list[Delta]:
    """What there is to say; its first delta counts the tokens that none has counted yet."""
    deltas = [delta for delta in found if delta is not None]
    for index, delta in enumerate(deltas):
        num_tokens, stream.num_told = stream.num_tokens - stream.num_told, stream.num_tokens
        if num_tokens != delta.num_tokens:
            deltas[index] = structs.replace(delta, num_tokens=num_tokens)
    return deltas


def _one_by_one(
    token_ids: TokenIds, ending: Finished | Failed | None
) -> Iterator[tuple[TokenIds, Finished | Failed | None]]:
    """The same output, in parts of one token."""
    for token_id in token_ids[:-1]:
        yield [token_id], None
    yield token_ids[-1:], ending


def _with_logprobs(stream: _Stream, delta: Delta | None) -> Delta | None:
    """The delta with the tokens of its text; what comes with it, or in its place, has none."""
    trail, reader = stream.trail, stream.reader
    if trail is None or delta is None:
        return delta
    if reader is None:
        return structs.replace(delta, logprobs=trail.take([(trail.num_released - len(delta.text), trail.num_released)]))
    logprobs = trail.take(reader.take_spans())
    trail.drop(reader.num_settled)
    return structs.replace(delta, logprobs=logprobs)
