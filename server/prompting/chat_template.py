"""A model's own chat template, rendered so that message text never becomes a control token.

The template comes with the weights and is untrusted code: it runs in Jinja's immutable sandbox. Knows no tokeniser: it
returns text in pieces, each marked as the template's or the user's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NoReturn

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from server.errors import InvalidRequest, LoadFailed
from server.types import ChatMessage

_MARKS = [chr(code) for code in range(0xF0000, 0xF0000 + 4096)]
"""Stand-ins for control-token strings inside message text: supplementary private-use characters, which no template
tests for. A message that holds one itself has it replaced like a control token."""


@dataclass(frozen=True)
class PromptPiece:
    """Part of a rendered prompt. Only where `parse_special` may control-token strings become control tokens."""

    text: str
    parse_special: bool


class ChatTemplate:
    """Renders conversations.

    Args:
        source: Jinja text from the weights.
        control_texts: Strings of the model's control tokens, e.g. "<|im_end|>".

    Raises:
        LoadFailed: The template does not compile.
    """

    def __init__(self, source: str, *, control_texts: Iterable[str], bos: str, eos: str) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _GenerationTag], autoescape=False
        )
        environment.globals.update(raise_exception=_raise_exception, strftime_now=_strftime_now)
        environment.filters["tojson"] = _to_json
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as exc:
            raise LoadFailed(f"the model's chat template does not compile: {exc}") from exc
        self._constants = {"bos_token": bos, "eos_token": eos, "add_generation_prompt": True, "tools": None}
        longest_first = sorted({*control_texts}, key=len, reverse=True)
        self._forbidden = re.compile("|".join([*map(re.escape, longest_first), f"[{_MARKS[0]}-{_MARKS[-1]}]"]))

    def render(self, messages: Sequence[ChatMessage]) -> list[PromptPiece]:
        """Render a conversation up to where the assistant's answer begins.

        Raises:
            InvalidRequest: The template refuses these messages, e.g. a role it does not know.
        """
        quarantine = _Quarantine(self._forbidden)
        turns = [_to_template(message, quarantine) for message in messages]
        try:
            text = self._template.render(messages=turns, **self._constants)
        except Exception as exc:
            # A template may fail with anything, as programs do; the worker lives on, and the client learns of it.
            raise InvalidRequest(
                f"the model's chat template refuses these messages: {exc}", param="messages", code="template_error"
            ) from exc
        return quarantine.split(text)


class _Quarantine:
    """Keeps control-token strings of message text out of the rendered text, and brings them back as plain text."""

    def __init__(self, forbidden: re.Pattern[str]) -> None:
        self._forbidden = forbidden
        self._mark_of: dict[str, str] = {}

    def clean(self, text: str) -> str:
        return self._forbidden.sub(self._mark, text)

    def split(self, text: str) -> list[PromptPiece]:
        if not self._mark_of:
            return [PromptPiece(text, parse_special=True)]
        text_of = {mark: original for original, mark in self._mark_of.items()}
        parts = re.split(f"([{''.join(text_of)}])", text)
        return [PromptPiece(text_of.get(part, part), parse_special=part not in text_of) for part in parts if part]

    def _mark(self, match: re.Match[str]) -> str:
        original = match.group()
        if original not in self._mark_of:
            if len(self._mark_of) == len(_MARKS):
                raise InvalidRequest("the messages hold too many different control-token strings", param="messages")
            self._mark_of[original] = _MARKS[len(self._mark_of)]
        return self._mark_of[original]


def _to_template(message: ChatMessage, quarantine: _Quarantine) -> dict[str, object]:
    """A message as templates expect it: plain dicts, with every string a user may have written cleaned."""
    role = "system" if message.role == "developer" else message.role
    turn: dict[str, object] = {"role": role, "content": quarantine.clean(message.content)}
    if message.name is not None:
        turn["name"] = quarantine.clean(message.name)
    if message.tool_call_id is not None:
        turn["tool_call_id"] = quarantine.clean(message.tool_call_id)
    if message.tool_calls:
        turn["tool_calls"] = [
            {
                "id": quarantine.clean(call.id),
                "type": "function",
                "function": {"name": quarantine.clean(call.name), "arguments": quarantine.clean(call.arguments)},
            }
            for call in message.tool_calls
        ]
    return turn


class _GenerationTag(Extension):
    """`{% generation %}` marks the assistant's words for training; here it means nothing."""

    tags = {"generation"}  # noqa: RUF012  # as jinja2 declares it

    def parse(self, parser: Parser) -> list[Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(value: object, indent: int | None = None) -> str:
    """As in transformers: Jinja's own filter escapes for HTML, which no model was trained on, and hides our marks."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise_exception(message: str) -> NoReturn:
    """Templates call this to refuse a conversation."""
    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    """Templates call this to tell the model the date."""
    return datetime.now().strftime(pattern)
