"""A model's own chat template: what it can do, and prompts made with it.

The template comes with the weights and is untrusted code: it is rendered by somebody else (`template_process.py`).
Knows no tokeniser: it returns text in pieces, each marked as the template's or the user's (`quarantine.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from server.errors import InvalidRequest, LoadFailed
from server.prompting.quarantine import ControlTexts, PromptPiece, Quarantine, render_safely
from server.prompting.sandboxed_template import Renderer, TemplateFailed, TemplateTooCostly, to_json
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
        make_renderer: Compiles it. Whoever calls closes what there is to close.
        model: Name for errors.
        control_texts: Strings of the model's control tokens, e.g. "<|im_end|>".

    Raises:
        LoadFailed: The template does not compile, or renders no conversation, or goes beyond a limit.
    """

    def __init__(
        self,
        source: str,
        make_renderer: Callable[[str], Renderer],
        *,
        model: str,
        control_texts: Iterable[str],
        bos: str,
        eos: str,
    ) -> None:
        try:
            self._renderer = make_renderer(source)
        except TemplateFailed as exc:
            raise LoadFailed(f"the model's chat template does not compile: {exc}") from exc
        self._model = model
        self._constants = {"bos_token": bos, "eos_token": eos, "add_generation_prompt": True}
        self._controls = ControlTexts(control_texts)
        self._turns = TurnStyle(has_short_ids="[TOOL_CALLS]" in source, has_thinking="message.thinking" in source)
        self.abilities = self._probe(self._renderer.variables - self._constants.keys() - {"messages", "tools"})

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
            InvalidRequest: The template refuses these messages, e.g. a role it does not know, or goes beyond a limit.
        """
        style = replace(self._turns, has_objects=self.abilities.takes_objects)
        ordered = messages if self.abilities.takes_system else without_system(messages)

        def render(quarantine: Quarantine) -> str:
            turns = [style.turn_of(message, quarantine) for message in ordered]
            offered = [quarantine.clean_json(offer(tool)) for tool in tools]
            if instruct and offered:
                turns = self._with_instructions(turns, instruct([to_json(each) for each in offered]))
                offered = []
            return self._render(turns, offered, quarantine.clean_json(options or {}))

        try:
            return render_safely(render, self._controls)
        except TemplateFailed as exc:
            message = f"the chat template of model {self._model!r} refuses these messages: {exc}"
            raise InvalidRequest(message, param="messages", code="template_error") from exc

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
        return self._renderer.render({**(options or {}), **self._constants, "messages": turns, "tools": tools or None})

    # ---- what the template can do

    def _probe(self, options: frozenset[str]) -> TemplateAbilities:
        user = {"role": "user", "content": "x"}
        system = {"role": "system", "content": _NEEDLE}
        tool = offer(Tool(name=_NEEDLE))
        call = {"id": "a1b2c3d4e", "type": "function", "function": {"name": "f", "arguments": {_NEEDLE: "x"}}}
        other = offer(Tool(name="f"))  # some templates are for conversations with tools alone
        probes = _Probes(self._render)
        called = probes.render([user, {"role": "assistant", "content": "", "tool_calls": [call]}], [], [other])
        is_object = _NEEDLE in called and f"'{_NEEDLE}'" not in called  # and not as Python writes a dict
        if not is_object:
            text = {**call, "function": {"name": "f", "arguments": f'{{"{_NEEDLE}": "x"}}'}}
            called = probes.render([user, {"role": "assistant", "content": "", "tool_calls": [text]}], [], [other])
        abilities = TemplateAbilities(
            takes_system=_NEEDLE in probes.render([system, user], [], [other]),
            takes_tools=_NEEDLE in probes.render([user], [tool]),
            takes_calls=_NEEDLE in called,
            takes_objects=is_object,
            options=options,
        )
        probes.render([user], [])
        probes.check()
        return abilities


class _Probes:
    """Tries a template out.

    Raises:
        LoadFailed: By any method: a probe goes beyond a limit.
    """

    def __init__(self, render: Callable[[Sequence[object], Sequence[object]], str]) -> None:
        self._render = render
        self._num_rendered = 0
        self._failure: TemplateFailed | None = None

    def render(self, turns: Sequence[object], *offers: Sequence[object]) -> str:
        """What comes of a probe with the first of these tools that the template does not stumble over, if any."""
        for tools in offers:
            try:
                text = self._render(turns, tools)
            except TemplateTooCostly as exc:
                raise LoadFailed(f"the model's chat template is not safe to use: {exc}") from exc
            except TemplateFailed as exc:
                self._failure = exc
            else:
                self._num_rendered += 1
                return text
        return ""

    def check(self) -> None:
        """Raise LoadFailed if nothing has been rendered."""
        if not self._num_rendered:
            raise LoadFailed(f"the model's chat template renders no conversation: {self._failure}") from self._failure
