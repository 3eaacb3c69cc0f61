"""Reads one answer as it comes. Knows no format: it resumes whatever generator reads the text."""

from __future__ import annotations

from collections.abc import Callable

from server.prompting.answers.answer_writer import AnswerWriter, Span
from server.prompting.answers.text_source import Reading, TextSource
from server.types import Delta


class AnswerReader:
    """Turns pieces of text into deltas. How the text is cut into pieces changes nothing in their sum.

    Args:
        read: Reads the whole answer from the source into the writer.
    """

    def __init__(self, read: Callable[[TextSource, AnswerWriter], Reading[None]], writer: AnswerWriter) -> None:
        self._source = TextSource()
        self._writer = writer
        writer.follow(self._source)
        self._reading = read(self._source, writer)
        self._resume()  # up to where it needs text

    @property
    def is_reasoning(self) -> bool:
        """What comes next is reasoning, as far as it is known yet."""
        return self._writer.is_reasoning

    @property
    def num_calls(self) -> int:
        return self._writer.num_calls

    @property
    def num_settled(self) -> int:
        """Characters of the text of which it is known that they are, or are not, content."""
        return self._writer.num_settled

    @property
    def is_full(self) -> bool:
        """Nothing that follows would be taken."""
        return self._writer.is_full

    def push(self, text: str) -> Delta | None:
        """Read more text; None where nothing can be said yet."""
        self._source.feed(text)
        self._resume()
        return self._writer.take()

    def finish(self) -> Delta | None:
        """Read what was held back, at the end of the text."""
        self._source.close()
        self._resume()
        self._writer.finish()
        return self._writer.take()

    def take_spans(self) -> list[Span]:
        """Where the content that was delivered since the last time stands in the text, in order."""
        return self._writer.take_spans()

    def _resume(self) -> None:
        next(self._reading, None)
