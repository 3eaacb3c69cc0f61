"""Reasoning that stands between two tags before the answer."""

from __future__ import annotations

import re
from dataclasses import dataclass

from server.prompting.answers.answer_writer import AnswerWriter
from server.prompting.answers.text_source import SPACE, Reading, TextSource, ignore

_LABEL = re.compile(r"[a-z]*")


@dataclass(frozen=True)
class ThoughtTags:
    """What encloses reasoning.

    Attributes:
        has_label: The opening tag is followed by the name of a channel, which is none of the reasoning.
        anywhere: Reasoning may also come later in an answer: only for tags that nobody writes by accident.
    """

    opening: str
    closing: str
    has_label: bool = False
    anywhere: bool = False

    def read_first(self, source: TextSource, answer: AnswerWriter, *, is_open: bool) -> Reading[None]:
        """Read the reasoning that an answer may begin with; `is_open` where the prompt has opened it already."""
        if not is_open:
            yield from source.copy_run(SPACE, answer.content)
            is_open = yield from source.take_literal(self.opening)
        if is_open:
            yield from self.read(source, answer)

    def read(self, source: TextSource, answer: AnswerWriter) -> Reading[None]:
        """Read reasoning up to its closing tag; without one, all the rest is reasoning."""
        answer.begin_reasoning()
        tag: str | None = self.opening  # which some models write twice
        while tag == self.opening:
            if self.has_label:
                yield from source.copy_run(_LABEL, ignore)
            tag = yield from source.copy_until((self.opening, self.closing), answer.reasoning)
        answer.end_reasoning()


THINK = ThoughtTags("<think>", "</think>")
MISTRAL = ThoughtTags("[THINK]", "[/THINK]")
GEMMA = ThoughtTags("<|channel>", "<channel|>", has_label=True, anywhere=True)
