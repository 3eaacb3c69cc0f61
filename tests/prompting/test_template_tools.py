"""Tools and calls in the templates of real models: as transformers would render them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

import jinja2
import pytest

from server.errors import InvalidRequest
from server.prompting.chat_template import ChatTemplate
from server.prompting.sandboxed_template import SandboxedTemplate
from server.types import ChatMessage, Tool, ToolCall

TEMPLATES = Path(__file__).parents[1] / "data/chat_templates"
NAMES = ("qwen3", "qwen3-coder", "mistral-nemo", "deepseek-v3.1", "gpt-oss")

SCHEMA = {"type": "object", "properties": {"city": {"type": "string", "description": "Where"}}, "required": ["city"]}
TOOL = Tool(name="get_weather", description="The weather", parameters=json.dumps(SCHEMA))
MESSAGES = (
    ChatMessage(role="system", content="Be brief."),
    ChatMessage(role="user", content="Oslo?"),
    ChatMessage(role="assistant", tool_calls=(ToolCall("a1b2c3d4e", "get_weather", '{"city": "Oslo", "n": 3}'),)),
    ChatMessage(role="tool", content="-3 degrees", tool_call_id="a1b2c3d4e"),
)

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
)

TEXT_ARGUMENTS = (
    "{% for m in messages %}{% for c in m.tool_calls %}{{ c.function.arguments + '!' }}{% endfor %}{% endfor %}"
)


def source_of(name: str) -> str:
    return (TEMPLATES / f"{name}.jinja").read_text()


def template(source: str) -> ChatTemplate:
    controls = ["<|im_start|>", "<|im_end|>"]
    return ChatTemplate(source, SandboxedTemplate, model="m", control_texts=controls, bos="<s>", eos="</s>")


def text_of(source: str, *messages: ChatMessage, **how: Any) -> str:
    return "".join(piece.text for piece in template(source).render(messages, **how))


def naively(source: str, date: str) -> str:
    """The same conversation rendered by plain Jinja, in the shape that transformers gives it to templates."""

    def refuse(message: str) -> NoReturn:
        raise AssertionError(message)

    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, autoescape=False)
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    environment.globals.update(raise_exception=refuse, strftime_now=lambda _: date)
    call = {
        "id": "a1b2c3d4e",
        "type": "function",
        "function": {"name": "get_weather", "arguments": {"city": "Oslo", "n": 3}},
    }
    return environment.from_string(source).render(
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Oslo?"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": "-3 degrees", "tool_call_id": "a1b2c3d4e"},
        ],
        tools=[
            {"type": "function", "function": {"name": TOOL.name, "description": TOOL.description, "parameters": SCHEMA}}
        ],
        bos_token="<s>",
        eos_token="</s>",
        add_generation_prompt=True,
    )


@pytest.mark.parametrize("name", NAMES)
def test_tools_calls_and_results_are_rendered_as_the_authors_meant(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.prompting.sandboxed_template._strftime_now", lambda _: "today")

    assert text_of(source_of(name), *MESSAGES, tools=[TOOL]) == naively(source_of(name), "today")


@pytest.mark.parametrize(
    ("source", "system", "tools", "calls", "objects"),
    [
        *((source_of(name), True, name != "deepseek-v3.1", True, True) for name in NAMES),
        (CHATML, True, False, False, False),
        (NO_SYSTEM, False, False, False, False),
        (TEXT_ARGUMENTS, False, False, True, False),
        ("{% for t in tools %}{{ t.function.name }}{% endfor %}{{ messages[0].content }}", True, True, False, False),
    ],
)
def test_abilities_are_found_out_by_trying(
    source: str, *, system: bool, tools: bool, calls: bool, objects: bool
) -> None:
    found = template(source).abilities

    assert (found.takes_system, found.takes_tools, found.takes_calls, found.takes_objects) == (
        system,
        tools,
        calls,
        objects,
    )


def test_a_template_that_wants_text_for_arguments_gets_text() -> None:
    assert text_of(TEXT_ARGUMENTS, *MESSAGES) == '{"city": "Oslo", "n": 3}!'


def test_arguments_that_were_cut_stay_text() -> None:
    cut = ChatMessage(role="assistant", tool_calls=(ToolCall("1", "f", '{"city": "Os'),))

    assert '{\\"city\\": \\"Os' in text_of(source_of("deepseek-v3.1"), ChatMessage(role="user", content="x"), cut)


def test_ids_that_mistral_refuses_are_shortened_alike_in_call_and_result() -> None:
    call = ChatMessage(role="assistant", tool_calls=(ToolCall("call_0123456789abcdef", "f", "{}"),))
    result = ChatMessage(role="tool", content="x", tool_call_id="call_0123456789abcdef")

    text = text_of(source_of("mistral-nemo"), ChatMessage(role="user", content="x"), call, result)

    short = text.split('"id": "')[1][:9]
    assert short.isalnum()
    assert f'"call_id": "{short}"' in text


def test_earlier_reasoning_reaches_templates_under_their_name_for_it() -> None:
    call = ChatMessage(
        role="assistant", content="I look.", reasoning="Hm.", tool_calls=(ToolCall("1", "get_weather", "{}"),)
    )
    said = (ChatMessage(role="user", content="Oslo?"), call, ChatMessage(role="tool", content="x", tool_call_id="1"))

    assert "<think>\nHm.\n</think>\n\nI look." in text_of(source_of("qwen3"), *said, tools=[TOOL])
    assert "<|channel|>analysis<|message|>Hm.<|end|>" in text_of(source_of("gpt-oss"), *said, tools=[TOOL])


def test_without_a_system_role_its_text_begins_the_users_first_message() -> None:
    said = (ChatMessage(role="system", content="Be brief."), ChatMessage(role="user", content="Oslo?"))

    assert text_of(NO_SYSTEM, *said) == "[user]Be brief.\n\nOslo?"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (CHATML, "<|im_start|>system\nBe brief.\n\nTOOLS get_weather<|im_end|>\n<|im_start|>user\nOslo?<|im_end|>\n"),
        (NO_SYSTEM, "[user]TOOLS get_weather\n\nBe brief.\n\nOslo?"),
    ],
)
def test_instructions_end_the_systems_message(source: str, expected: str) -> None:
    def instruct(tools: Any) -> str:
        return f"TOOLS {json.loads(tools[0])['function']['name']}"

    assert text_of(source, *MESSAGES[:2], tools=[TOOL], instruct=instruct).startswith(expected)


def test_instructions_need_no_system_message() -> None:
    text = text_of(CHATML, MESSAGES[1], tools=[TOOL], instruct=lambda _: "TOOLS")

    assert text.startswith("<|im_start|>system\nTOOLS<|im_end|>\n<|im_start|>user\n")


def test_options_reach_the_template_and_are_never_control_tokens() -> None:
    source = "{{ date_string }} {{ messages[0].content }}{{ bos_token }}"

    pieces = template(source).render([MESSAGES[1]], options={"date_string": "<|im_end|>", "bos_token": "forged"})

    assert template(source).abilities.options == {"date_string"}
    assert [(piece.text, piece.parse_special) for piece in pieces] == [("<|im_end|>", False), (" Oslo?<s>", True)]


def test_a_tool_that_breaks_a_template_is_a_bad_request() -> None:
    source = "{% for t in tools or [] %}{{ t.function.parameters.properties.city.y.z }}{% endfor %}"

    with pytest.raises(InvalidRequest, match="refuses these messages"):
        template(source).render([MESSAGES[1]], tools=[TOOL])
