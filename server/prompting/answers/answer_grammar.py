"""Which texts an answer may be, as a Lark grammar in llguidance's dialect: thoughts, then calls or content.

Calls are written as the format's frame has them, so that they are read back as calls whatever the model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from server.prompting.answers import harmony
from server.prompting.answers.thoughts import ThoughtTags
from server.prompting.answers.tool_format import ToolFormat

MAX_CALLS = 16
"""In one answer that must call: a weak model would go on for ever."""

CONTENT = "content"
"""Name of the grammar that the client wants the content to have."""

_SPACE = r"/[ \n]{0,4}/"
_TEXT = r"/(.|\n)*/"
_NO_BRACE = r"/(\s*[^{\s](.|\n)*)?/"


@dataclass(frozen=True, kw_only=True)
class AnswerShape:
    """What an answer may consist of.

    Attributes:
        thoughts: What encloses the reasoning that it may begin with.
        is_thinking: The prompt has begun the reasoning already.
        format: How it calls; None: it must not.
        schemas: Of each function that it may call; None: any arguments.
        is_required: It consists of calls alone.
        is_parallel: It may have several.
        has_content_grammar: The client has a grammar for content, which is to be supplied under the name `CONTENT`.
    """

    thoughts: ThoughtTags | None = None
    is_thinking: bool = False
    format: ToolFormat | None = None
    schemas: Mapping[str, Mapping[str, Any] | None]
    is_required: bool = False
    is_parallel: bool = True
    has_content_grammar: bool = False


def answer_grammar(shape: AnswerShape, token_ids: Mapping[str, int], json_options: Mapping[str, Any]) -> str:
    """Write the grammar.

    Args:
        token_ids: Of the model's control tokens, by their texts; any other text is spelled out.
        json_options: For llguidance, how JSON may be laid out.
    """
    return _Writer(shape, token_ids, json_options).write()


class _Writer:
    def __init__(self, shape: AnswerShape, token_ids: Mapping[str, int], json_options: Mapping[str, Any]) -> None:
        self._shape = shape
        self._token_ids = token_ids
        self._json_options = json_options
        self._controls = re.compile("|".join(map(re.escape, sorted(token_ids, key=len, reverse=True))) or "(?!)")
        self._rules: dict[str, str] = {}

    def write(self) -> str:
        start = self._harmony() if self._shape.format is harmony.HARMONY else f"{self._thought()} ({self._body()})"
        rules = [f"start: {start}", *(f"{name}: {body}" for name, body in self._rules.items())]
        return "\n".join([*rules, f"TEXT: {_TEXT}", f"SPACE: {_SPACE}", f"NO_BRACE: {_NO_BRACE}", ""])

    # ---- the parts of an answer

    def _thought(self) -> str:
        tags = self._shape.thoughts
        if tags is None:
            return ""
        rest = f"{self._up_to(tags.closing)} SPACE"
        return rest if self._shape.is_thinking else f"({self._spell(tags.opening)} {rest})?"

    def _body(self) -> str:
        shape = self._shape
        if shape.format is None:
            return self._content
        if shape.is_required:
            return self._calls(shape.format)
        if shape.has_content_grammar:
            return f"{self._calls(shape.format)} | {self._content}"
        if shape.format.opener is None:
            return f"{self._calls(shape.format)} | NO_BRACE"
        behind_text = self._calls(shape.format, opener=shape.format.opener)
        return f"({behind_text})* TEXT" if self._takes_several else f"{behind_text} | TEXT"

    def _harmony(self) -> str:
        """Messages of the channels `analysis` and `commentary`, then a call or the final message."""
        say, shape = self._spell, self._shape
        channel, message = say(harmony.CHANNEL), say(harmony.MESSAGE)
        next_message = f"{self._up_to(harmony.END)} {say(f'{harmony.START}assistant')}"
        channels = f'"{harmony.ANALYSIS}"' if shape.is_required else f'("{harmony.ANALYSIS}" | "{harmony.COMMENTARY}")'
        notes = f"({channel} {channels} {message} {next_message})*"
        final = f'{channel} "{harmony.FINAL}" {message} {self._content}'
        if not shape.schemas:
            return f"{notes} {final}"
        calls = self._calls(harmony.HARMONY)
        return f"{notes} {calls}" if shape.is_required else f"{notes} ({calls} | {final})"

    def _calls(self, format_: ToolFormat, *, opener: str = "") -> str:
        """One call or several; with an opener, behind a text that ends with it."""
        frame = format_.frame
        first = f"{frame.beginning}{frame.before}".removeprefix(opener)
        more = f"({self._spell(frame.between)} {self._spell(frame.before)} {self._call})"
        num_more = MAX_CALLS - 1 if self._takes_several and (frame.beginning or not opener) else 0
        parts = [
            self._up_to(opener) if opener else "",
            self._spell(first),
            self._call,
            f"{more}{{0,{num_more}}}" if num_more else "",
            self._spell(frame.end),
        ]
        return " ".join(filter(None, parts))

    @property
    def _takes_several(self) -> bool:
        return self._shape.is_parallel and self._shape.format is not None and not self._shape.format.is_single

    @property
    def _call(self) -> str:
        """The name of the rule for one call behind `CallFrame.before`."""
        assert self._shape.format is not None
        frame, schemas = self._shape.format.frame, self._shape.schemas
        free = [name for name, schema in schemas.items() if schema is None]
        calls = []
        if free:
            self._rules["any_object"] = self._json({})
            calls.append(f"({_either(free)}) {self._spell(frame.middle)} any_object")
        for index, (name, schema) in enumerate(schemas.items()):
            if schema is not None:
                self._rules[f"arguments_{index}"] = self._json(schema)
                calls.append(f"{_literal(name)} {self._spell(frame.middle)} arguments_{index}")
        self._rules["call"] = f"({' | '.join(calls)}) {self._spell(frame.after)}"
        return "call"

    @property
    def _content(self) -> str:
        return f"@{CONTENT}" if self._shape.has_content_grammar else "TEXT"

    # ---- the parts of a rule

    def _json(self, schema: Mapping[str, Any]) -> str:
        """NOTE: the options take the place of a client's, which could make other texts of the same schema."""
        return f"%json {json.dumps({**schema, 'type': 'object', 'x-guidance': self._json_options})}"

    def _spell(self, text: str) -> str:
        """A text, its control tokens as such."""
        parts = []
        at = 0
        for found in self._controls.finditer(text):
            parts += [_literal(text[at : found.start()]), f"<[{self._token_ids[found.group()]}]>"]
            at = found.end()
        return " ".join(filter(None, [*parts, _literal(text[at:])]))

    def _up_to(self, marker: str) -> str:
        """Any text up to and including the first marker."""
        if marker in self._token_ids:
            return f"TEXT {self._spell(marker)}"
        name = f"up_to_{len(self._rules)}[lazy]"
        self._rules[name] = f"TEXT {_literal(marker)}"
        return name.removesuffix("[lazy]")


def _either(names: Sequence[str]) -> str:
    return " | ".join(map(_literal, names))


def _literal(text: str) -> str:
    return json.dumps(text) if text else ""
