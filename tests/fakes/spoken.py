"""What a client has heard of an answer, put together from its deltas; and readers of answers for tests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from server.prompting.answers.answer_reader import AnswerReader
from server.prompting.answers.answer_writer import AnswerWriter
from server.prompting.answers.text_source import Reading, TextSource
from server.prompting.answers.thoughts import ThoughtTags
from server.prompting.answers.tool_format import ToolFormat, read_text
from server.types import Delta

WEATHER: Mapping[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city"],
}
SCHEMAS: Mapping[str, Mapping[str, Any]] = {"get_weather": WEATHER, "get_time": {"type": "object"}}
"""What may be called in tests."""


@dataclass
class Spoken:
    """Calls are (name, arguments)."""

    content: str = ""
    reasoning: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)

    def hear(self, delta: Delta | None) -> None:
        if delta is None:
            return
        self.content += delta.text
        self.reasoning += delta.reasoning
        for call in delta.tool_calls:
            if call.id:
                assert call.index == len(self.calls)
                assert call.name
                self.calls.append((call.name, call.arguments))
            else:
                assert not call.name
                name, arguments = self.calls[call.index]
                self.calls[call.index] = (name, arguments + call.arguments)


def reader_of(
    tools: ToolFormat | None,
    *,
    thoughts: ThoughtTags | None = None,
    is_thinking: bool = False,
    trusts_calls: bool = False,
    max_calls: int | None = None,
    schemas: Mapping[str, Mapping[str, Any]] = SCHEMAS,
) -> AnswerReader:
    """A reader as the worker makes it."""

    def read(source: TextSource, answer: AnswerWriter) -> Reading[None]:
        if thoughts:
            yield from thoughts.read_first(source, answer, is_open=is_thinking)
        yield from (tools.read if tools else read_text)(source, answer, schemas, thoughts)

    return AnswerReader(read, AnswerWriter(schemas.keys(), max_calls=max_calls, trusts_calls=trusts_calls))


def hear(reader: AnswerReader, pieces: Iterable[str]) -> Spoken:
    """Everything that is said of a text that comes in these pieces."""
    spoken = Spoken()
    for piece in pieces:
        if not reader.is_full:
            spoken.hear(reader.push(piece))
    spoken.hear(reader.finish())
    return spoken


def read(text: str, tools: ToolFormat | None, **how: Any) -> Spoken:
    """Everything that is said of a text that comes whole."""
    return hear(reader_of(tools, **how), [text])
