"""How a family of models writes tool calls, as data that the rest is made from: readers, grammars, instructions."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from server.prompting.answers.answer_writer import AnswerWriter
from server.prompting.answers.text_source import Reading, TextSource
from server.prompting.answers.thoughts import ThoughtTags

Schemas = Mapping[str, Mapping[str, Any]]
"""The JSON schema of each function's arguments, by its name."""

NAME = re.compile(r"[\w.-]*", re.ASCII)
"""A function's name, where it stands without quotes."""

ReadCalls = Callable[[TextSource, AnswerWriter, str, Schemas], Reading[None]]
ReadAnswer = Callable[[TextSource, AnswerWriter, Schemas, ThoughtTags | None], Reading[None]]


@dataclass(frozen=True)
class CallFrame:
    """What stands around the parts of calls: `beginning (before NAME middle ARGUMENTS after) between (...) end`.

    What is written so is read as a call by the format's reader, whether or not the model would have written just that.
    """

    before: str
    middle: str
    after: str = ""
    beginning: str = ""
    between: str = "\n"
    end: str = ""

    def write(self, calls: Sequence[tuple[str, str]]) -> str:
        """The text of calls: (name, arguments)."""
        texts = (f"{self.before}{name}{self.middle}{arguments}{self.after}" for name, arguments in calls)
        return f"{self.beginning}{self.between.join(texts)}{self.end}"


@dataclass(frozen=True)
class ToolFormat:
    """One family's way to call tools.

    Attributes:
        frame: How its calls can be written.
        read: Reads an answer to its end, behind the reasoning that it may begin with.
        opener: What calls begin with wherever they stand in an answer; None: only at its beginning, by a brace.
        control_texts: Control tokens that the reader must see.
        is_own_frame: The model writes `frame` by itself; else it writes something that is not JSON.
        is_single: The model was made for one call at a time.
        is_channelled: The format divides the whole answer, reasoning included, so that it is read without tools too.
    """

    frame: CallFrame
    read: ReadAnswer
    opener: str | None
    control_texts: tuple[str, ...] = ()
    is_own_frame: bool = True
    is_single: bool = False
    is_channelled: bool = False


@dataclass(frozen=True)
class TextWithCalls:
    """Reads an answer with calls in the midst of its text, and thoughts where they may stand anywhere.

    Attributes:
        openers: What calls begin with.
        read_calls: Reads them behind an opener, which has been read.
    """

    openers: tuple[str, ...]
    read_calls: ReadCalls

    def __call__(
        self, source: TextSource, answer: AnswerWriter, schemas: Schemas, thoughts: ThoughtTags | None
    ) -> Reading[None]:
        tags = (thoughts.opening, thoughts.closing) if thoughts and thoughts.anywhere else ()
        while (found := (yield from source.copy_until((*self.openers, *tags), answer.content))) is not None:
            if found in self.openers:
                yield from self.read_calls(source, answer, found, schemas)
            elif thoughts and found == thoughts.opening:
                yield from thoughts.read(source, answer)


def _no_calls(_source: TextSource, _answer: AnswerWriter, _opener: str, _schemas: Schemas) -> Reading[None]:
    yield from ()


read_text = TextWithCalls((), _no_calls)
"""Reads an answer without calls."""
