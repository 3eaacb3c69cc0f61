"""What a model says, as the events of Anthropic's streams; and a whole message, which is those events put together.

Both come from the same events, so a streamed answer and one in a piece never differ.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any

from pydantic_core import from_json

from server.rag.prompt import Source
from server.services.generation import ChatEvent
from server.services.grounding import Cited, CitedSource, Sourced
from server.types import Delta, Finished, Started, ToolCallDelta, Usage

SIGNATURE = "hearth"
"""Of thoughts. It proves nothing; clients send thoughts back only where there is one."""

Body = dict[str, Any]

_CALL_PREFIX, _TOOL_USE_PREFIX = "call_", "toolu_"
_KEYS = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}
"""Where the events that go on with a block have their piece of it."""


class MessageEvents:
    """Turns the events of one generation into those of a message: one content block after the other.

    Args:
        max_tokens: What the request allows, which tells why an answer was cut.
        shows_thinking: Otherwise there are blocks for thoughts, and nothing in them.
        num_documents: Those of the request, which are counted before others.
    """

    def __init__(
        self, message_id: str, model_id: str, *, max_tokens: int, shows_thinking: bool, num_documents: int
    ) -> None:
        self._message_id = message_id
        self._model_id = model_id
        self._max_tokens = max_tokens
        self._shows_thinking = shows_thinking
        self._num_documents = num_documents
        self._index = 0
        self._open: Hashable | None = None  # what the block is of that was begun and not ended
        self._sources: tuple[Source, ...] = ()

    def say(self, event: ChatEvent) -> Iterator[Body]:
        match event:
            case Started():
                yield self._start(event)
            case Sourced():
                self._sources = event.sources
            case Delta():
                yield from self._say_delta(event)
            case Cited():
                yield from self._cite(event)
            case Finished():
                yield from self._end(event)

    def _start(self, started: Started) -> Body:
        message: Body = {
            "id": self._message_id,
            "type": "message",
            "role": "assistant",
            "model": self._model_id,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "stop_details": None,
            # What of the prompt was computed before turns out later, so the last event has the final counts.
            "usage": {**_usage_body(Usage(prompt_tokens=started.prompt_tokens)), "service_tier": "standard"},
        }
        return {"type": "message_start", "message": message}

    def _say_delta(self, delta: Delta) -> Iterator[Body]:
        if delta.reasoning:
            yield from self._enter("thinking", {"type": "thinking", "thinking": "", "signature": ""})
            if self._shows_thinking:
                yield self._go_on({"type": "thinking_delta", "thinking": delta.reasoning})
        if delta.text:
            yield from self._enter("text", {"type": "text", "text": ""})
            yield self._go_on({"type": "text_delta", "text": delta.text})
        for call in delta.tool_calls:
            yield from self._say_call(call)

    def _say_call(self, call: ToolCallDelta) -> Iterator[Body]:
        call_id = _TOOL_USE_PREFIX + call.id.removeprefix(_CALL_PREFIX)
        block = {"type": "tool_use", "id": call_id, "name": call.name, "input": {}}
        yield from self._enter(call.index, block)
        if call.arguments:
            yield self._go_on({"type": "input_json_delta", "partial_json": call.arguments})

    def _cite(self, cited: Cited) -> Iterator[Body]:
        """Citations belong to a text; where calls have followed it, it cannot be gone back to."""
        if self._open != "text":
            return
        for mark in cited.marks:
            yield self._go_on({"type": "citations_delta", "citation": self._citation(mark)})

    def _citation(self, mark: CitedSource) -> Body:
        source = self._sources[mark.number - 1]
        span, text = (mark.quote.span, mark.quote.text) if mark.quote else (source.span, source.text)
        is_given = source.document_id < 0
        return {
            "type": "char_location",
            "cited_text": text,
            "document_index": self._num_documents + (source.document_id if is_given else mark.number - 1),
            "document_title": source.filename,
            "start_char_index": span.start,
            "end_char_index": span.end,
            "file_id": None if is_given else source.file_id,
        }

    def _end(self, finished: Finished) -> Iterator[Body]:
        yield from self._leave()
        reason = self._stop_reason(finished)
        stop_text = finished.stop_text if reason == "stop_sequence" else None
        delta = {"stop_reason": reason, "stop_sequence": stop_text, "stop_details": None}
        yield {"type": "message_delta", "delta": delta, "usage": _usage_body(finished.usage)}
        yield {"type": "message_stop"}

    def _stop_reason(self, finished: Finished) -> str:
        if finished.reason == "tool_calls":
            return "tool_use"
        if finished.reason == "length":
            is_full = finished.usage.completion_tokens < self._max_tokens
            return "model_context_window_exceeded" if is_full else "max_tokens"
        return "end_turn" if finished.stop_text is None else "stop_sequence"

    # ---- blocks

    def _enter(self, kind: Hashable, block: Body) -> Iterator[Body]:
        """Begin a block, unless the one that was begun last is of the same."""
        if kind == self._open:
            return
        yield from self._leave()
        self._open = kind
        yield {"type": "content_block_start", "index": self._index, "content_block": block}

    def _go_on(self, delta: Body) -> Body:
        return {"type": "content_block_delta", "index": self._index, "delta": delta}

    def _leave(self) -> Iterator[Body]:
        if self._open is None:
            return
        if self._open == "thinking":
            yield self._go_on({"type": "signature_delta", "signature": SIGNATURE})
        yield {"type": "content_block_stop", "index": self._index}
        self._open = None
        self._index += 1


def _usage_body(usage: Usage) -> Body:
    """Anthropic's prompt tokens are those that had to be computed; nothing is charged for keeping them."""
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
    }


class WholeMessage:
    """The message that a stream's events amount to, put together as the SDKs do.

    Attributes:
        body: Complete with the last event.
    """

    def __init__(self) -> None:
        self.body: Body = {}
        self._pieces: list[str] = []  # of the last block

    def add(self, event: Body) -> None:
        match event:
            case {"type": "message_start", "message": message}:
                self.body = message
            case {"type": "content_block_start", "content_block": block}:
                self.body["content"].append(block)
                self._pieces = []
            case {"type": "content_block_delta", "delta": delta}:
                self._extend(self.body["content"][-1], delta)
            case {"type": "content_block_stop"}:
                self._complete(self.body["content"][-1])
            case {"type": "message_delta", "delta": delta, "usage": usage}:
                self.body |= delta
                self.body["usage"] |= usage

    def _extend(self, block: Body, delta: Body) -> None:
        match delta["type"]:
            case "signature_delta":
                block["signature"] = delta["signature"]
            case "citations_delta":
                block.setdefault("citations", []).append(delta["citation"])
            case kind:
                self._pieces.append(delta[_KEYS[kind]])

    def _complete(self, block: Body) -> None:
        said = "".join(self._pieces)
        if block["type"] != "tool_use":
            block[block["type"]] = said
        elif said:
            block["input"] = from_json(said, allow_partial=True)  # of arguments that were cut, what there is of them
