"""Generated token ids to stream events: text, stop strings, endings.

Runs on a thread of its own, one step behind the engine, which computes the next tokens meanwhile. So the engine knows
no text: it ends a sequence at an end token or at its limit, and here ends what says a stop string.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from msgspec import structs

from server.engine.detokenizer import Detokenizer
from server.engine.engine import TokenOutput
from server.engine.sequence import Sequence
from server.errors import InternalError
from server.types import Delta, Failed, Finished, StreamEvent, Usage

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

    def push(self, text: str) -> Delta | None:
        """Read more text; None where nothing can be said yet."""

    def finish(self) -> Delta | None:
        """Read what was held back, at the end of the text."""


@dataclass(slots=True)
class _Stream:
    sequence: Sequence
    detokenizer: Detokenizer
    reader: AnswerReader | None
    num_tokens: int = 0  # those seen here; the engine may be ahead
    num_reasoning_tokens: int = 0


class OutputProcessor:
    """Keeps the text of every live request, and sees to it that its stream ends exactly once.

    `open`, `close` and `is_awaited` may be called from any thread; `process` from one only.

    Args:
        abort: Makes the engine drop a request that has said a stop string; called by `process`.
        is_end: Whether a token ends a text, and so is none of it.
    """

    def __init__(self, abort: Callable[[str], None], *, is_end: Callable[[int], bool]) -> None:
        self._abort = abort
        self._is_end = is_end
        self._streams: dict[str, _Stream] = {}

    def open(self, sequence: Sequence, detokenizer: Detokenizer, reader: AnswerReader | None = None) -> None:
        """Expect tokens of a sequence; before the engine has it. Without a reader, all text is content."""
        self._streams[sequence.request_id] = _Stream(sequence, detokenizer, reader)

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
                deltas, end = self._answer(stream, token_ids, ending)
            except Exception:
                # The loop must survive a bug: this request ends, with the traceback in the log, and the others go on.
                logger.exception("text could not be made", extra={"request_id": request_id})
                deltas, end = [], Failed(InternalError.code, "internal error; the server's log has details")
                self._abort(request_id)
            events += [(request_id, delta) for delta in deltas if delta]
            if end:
                events.append((request_id, end))
                self.close(request_id)
        return events

    def _has_said_nothing(self, request_id: str) -> bool:
        stream = self._streams.get(request_id)
        return stream is not None and not stream.num_tokens

    def _answer(
        self, stream: _Stream, token_ids: list[int], ending: Finished | Failed | None
    ) -> tuple[list[Delta | None], Finished | Failed | None]:
        """What the tokens add to the answer, and its ending."""
        reader = stream.reader
        was_reasoning = reader is not None and reader.is_reasoning
        num_before = stream.num_tokens
        text, end = self._read(stream, token_ids, ending)
        if reader is None:
            return [Delta(text) if text else None], end
        if was_reasoning:
            stream.num_reasoning_tokens += stream.num_tokens - num_before  # without those behind a stop string
        deltas = [reader.push(text)]
        if end is None and reader.is_full:
            end = self._stop(stream, is_over=False)
        if isinstance(end, Finished):
            deltas.append(reader.finish())
            usage = structs.replace(end.usage, reasoning_tokens=stream.num_reasoning_tokens)
            is_calling = end.reason == "stop" and reader.num_calls > 0
            end = structs.replace(end, reason="tool_calls" if is_calling else end.reason, usage=usage)
        return deltas, end

    def _read(
        self, stream: _Stream, token_ids: list[int], ending: Finished | Failed | None
    ) -> tuple[str, Finished | Failed | None]:
        """The text that the tokens add, and the ending: the engine's, or that of a stop string before it."""
        detokenizer = stream.detokenizer
        text = ""
        for token_id in token_ids:
            stream.num_tokens += 1
            if not self._is_end(token_id):
                text += detokenizer.push(token_id)
            if detokenizer.stopped:
                return text, self._stop(stream, is_over=ending is not None)
        if isinstance(ending, Finished):
            text += detokenizer.flush()
            if detokenizer.stopped:
                return text, self._stop(stream, is_over=True)
        return text, ending

    def _stop(self, stream: _Stream, *, is_over: bool) -> Finished:
        sequence = stream.sequence
        if not is_over:
            self._abort(sequence.request_id)
        usage = Usage(
            prompt_tokens=sequence.num_prompt_tokens,
            completion_tokens=stream.num_tokens,
            cached_tokens=sequence.num_cached_tokens or 0,
        )
        return Finished("stop", usage, stop_text=stream.detokenizer.stop_text)
