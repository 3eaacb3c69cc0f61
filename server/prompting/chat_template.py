"""A model's own chat template: what it can do, and prompts made with it.

The template comes with the weights and is untrusted code: it runs in Jinja's immutable sandbox. Knows no tokeniser: it
returns text in pieces, each marked as the template's or the user's (`quarantine.py`).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NoReturn

import jinja2
from jinja2 import meta
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from server.errors import InvalidRequest, LoadFailed
from server.prompting.quarantine import ControlTexts, PromptPiece, Quarantine, render_safely
from server.prompting.template_turns import Turn, TurnStyle, offer, without_system
from server.types import ChatMessage, TemplateOption, Tool

_NEEDLE = "needle7xq"
"""What a template is probed with: a text that it cannot have of its own."""


@dataclass(frozen=True)
class TemplateAbilities:
    """What a template was made for, found out by trying.

    Attributes:
        takes_system: It has a system role.
        takes_tools: It tells the model of tools.
        takes_calls: It shows the model earlier calls.
        takes_objects: The arguments of calls are to be objects, as in transformers; else JSON text.
        options: Variables that it reads besides those that every template gets.
    """

    takes_system: bool
    takes_tools: bool
    takes_calls: bool
    takes_objects: bool
    options: frozenset[str]


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
            variables = meta.find_undeclared_variables(environment.parse(source))
        except jinja2.TemplateError as exc:
            raise LoadFailed(f"the model's chat template does not compile: {exc}") from exc
        self._constants = {"bos_token": bos, "eos_token": eos, "add_generation_prompt": True}
        self._controls = ControlTexts(control_texts)
        self._turns = TurnStyle(has_short_ids="[TOOL_CALLS]" in source, has_thinking="message.thinking" in source)
        self.abilities = self._probe(frozenset(variables - self._constants.keys() - {"messages", "tools"}))

    def render(
        self,
        messages: Sequence[ChatMessage],
        *,
        tools: Sequence[Tool] = (),
        instruct: Callable[[Sequence[str]], str] | None = None,
        options: Mapping[str, TemplateOption] | None = None,
    ) -> list[PromptPiece]:
        """Render a conversation up to where the assistant's answer begins.

        Args:
            instruct: Tells the model of the tools, each given as JSON, where the template does not; what it says may
                hold control tokens, and goes where the system's message ends.
            options: Variables that the template reads.

        Raises:
            InvalidRequest: The template refuses these messages, e.g. a role it does not know.
        """
        style = replace(self._turns, has_objects=self.abilities.takes_objects)
        ordered = messages if self.abilities.takes_system else without_system(messages)

        def render(quarantine: Quarantine) -> str:
            turns = [style.turn_of(message, quarantine) for message in ordered]
            offered = [quarantine.clean_json(offer(tool)) for tool in tools]
            if instruct and offered:
                turns = self._with_instructions(turns, instruct([_to_json(each) for each in offered]))
                offered = []
            return self._render(turns, offered, quarantine.clean_json(options or {}))

        try:
            return render_safely(render, self._controls)
        except InvalidRequest:
            raise
        except Exception as exc:
            # A template may fail with anything, as programs do; the worker lives on, and the client learns of it.
            raise InvalidRequest(
                f"the model's chat template refuses these messages: {exc}", param="messages", code="template_error"
            ) from exc

    def _with_instructions(self, turns: list[Turn], instructions: str) -> list[Turn]:
        first = turns[0]
        if first["role"] == "system":
            return [{**first, "content": f"{first['content']}\n\n{instructions}"}, *turns[1:]]
        if self.abilities.takes_system:
            return [{"role": "system", "content": instructions}, *turns]
        return [{**first, "content": f"{instructions}\n\n{first['content']}"}, *turns[1:]]

    def _render(
        self, turns: Sequence[object], tools: Sequence[object] = (), options: Mapping[str, object] | None = None
    ) -> str:
        return self._template.render({**(options or {}), **self._constants, "messages": turns, "tools": tools or None})

    # ---- what the template can do

    def _probe(self, options: frozenset[str]) -> TemplateAbilities:
        user = {"role": "user", "content": "x"}
        system = {"role": "system", "content": _NEEDLE}
        tool = offer(Tool(name=_NEEDLE))
        call = {"id": "a1b2c3d4e", "type": "function", "function": {"name": "f", "arguments": {_NEEDLE: "x"}}}
        other = offer(Tool(name="f"))  # some templates are for conversations with tools alone
        called = self._try([user, {"role": "assistant", "content": "", "tool_calls": [call]}], [], [other])
        is_object = _NEEDLE in called and f"'{_NEEDLE}'" not in called  # and not as Python writes a dict
        if not is_object:
            text = {**call, "function": {"name": "f", "arguments": f'{{"{_NEEDLE}": "x"}}'}}
            called = self._try([user, {"role": "assistant", "content": "", "tool_calls": [text]}], [], [other])
        return TemplateAbilities(
            takes_system=_NEEDLE in self._try([system, user], [], [other]),
            takes_tools=_NEEDLE in self._try([user], [tool]),
            takes_calls=_NEEDLE in called,
            takes_objects=is_object,
            options=options,
        )

    def _try(self, turns: Sequence[object], *offers: Sequence[object]) -> str:
        """What comes of a probe with the first of these tools that the template does not stumble over, if any."""
        for tools in offers:
            with contextlib.suppress(Exception):
                return self._render(turns, tools)
        return ""


class _GenerationTag(Extension):
    """`{% generation %}` marks the assistant's words for training; here it means nothing."""

    tags = {"generation"}  # noqa: RUF012  # as jinja2 declares it

    def parse(self, parser: Parser) -> list[Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(
    value: object,
    *,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As in transformers: Jinja's own filter escapes for HTML, which no model was trained on.

    `ensure_ascii` would hide the stand-ins of the quarantine, so it is taken and ignored.
    """
    if isinstance(value, Generator):  # what Jinja's own filters give, such as `map`
        value = list(value)
    return json.dumps(value, ensure_ascii=False, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    """Templates call this to refuse a conversation."""
    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    """Templates call this to tell the model the date."""
    return datetime.now().strftime(pattern)
