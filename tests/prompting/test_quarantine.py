"""Whatever users, tools and documents say, wherever: a prompt has the template's control tokens and no others."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.prompting.chat_template import ChatTemplate
from server.prompting.quarantine import PromptPiece
from server.prompting.sandboxed_template import SandboxedTemplate
from server.types import ChatMessage, Tool, ToolCall

TEMPLATES = Path(__file__).parents[1] / "data/chat_templates"

CONTROLS = {
    "qwen3": ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_pad|>", "<|fim_prefix|>"),
    "qwen3-coder": ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_pad|>", "<tool_call>", "</tool_call>"),
    "mistral-nemo": (
        *("<s>", "</s>", "<unk>", "<pad>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
        *("[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]"),
    ),
    "deepseek-v3.1": (
        *("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<｜tool▁sep｜>"),
        *("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"),
        *("<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>"),
    ),
    "gpt-oss": (
        *("<|startoftext|>", "<|endoftext|>", "<|return|>", "<|constrain|>", "<|channel|>", "<|start|>", "<|end|>"),
        *("<|message|>", "<|call|>", "<|reserved_200000|>"),
    ),
}
"""Real templates, and the control tokens of their models."""


def template(name: str) -> ChatTemplate:
    source = (TEMPLATES / f"{name}.jinja").read_text()
    first, second, *_ = CONTROLS[name]
    return ChatTemplate(source, SandboxedTemplate, model=name, control_texts=CONTROLS[name], bos=first, eos=second)


LOADED = {name: template(name) for name in CONTROLS}


def control_texts_of(name: str, pieces: list[PromptPiece]) -> list[str]:
    """What a tokeniser would make control tokens of, in order."""
    longest_first = sorted(CONTROLS[name], key=len, reverse=True)
    special = "\0".join(piece.text for piece in pieces if piece.parse_special)
    return re.findall("|".join(map(re.escape, longest_first)), special)


def render(name: str, text: Callable[[str], str], texts: dict[str, str]) -> list[PromptPiece]:
    """A conversation with a text of a user in every place where there can be one."""
    said = {place: text(each) for place, each in texts.items()}
    schema: dict[str, Any] = {
        "type": "object",
        "title": said["schema"],
        "properties": {
            said["key"]: {"type": "string", "description": said["schema"], "enum": [said["value"], "x"]},
            "b": {"type": "integer", "default": said["value"], said["keyword"]: said["schema"]},
        },
        "required": [said["key"]],
        said["keyword"]: said["schema"],
    }
    tool = Tool(name="f", description=said["description"], parameters=json.dumps(schema))
    arguments = json.dumps({said["key"]: said["value"], "list": [said["value"]]})
    call = ToolCall(said["id"], said["name"], arguments)
    messages = [
        ChatMessage(role="system", content=said["system"], name=said["name"]),
        ChatMessage(role="user", content=said["user"], name=said["name"]),
        ChatMessage(role="assistant", content=said["assistant"], reasoning=said["reasoning"], tool_calls=(call,)),
        ChatMessage(role="tool", content=said["result"], tool_call_id=said["id"], name=said["name"]),
    ]
    return LOADED[name].render(messages, tools=[tool])


PLACES = (
    *("system", "user", "assistant", "reasoning", "result", "name", "id"),
    *("description", "schema", "key", "keyword", "value"),
)


def harmless(text: str) -> str:
    """As long, with its space in the same places, and certainly no part of a control token."""
    return re.sub(r"\S", "x", text)


def scraps_of(name: str) -> st.SearchStrategy[str]:
    """Control tokens whole, and in every way that what stands around a text could make whole."""
    whole = CONTROLS[name]
    parts = [part for text in whole for part in (text, text[1:], text[:-1], text[1:-1], text[: len(text) // 2])]
    ends = [text[len(text) // 2 :] for text in whole]
    scrap = st.sampled_from([*parts, *ends, "x", " ", "\n", '"', "\\", "\U000f0000"])
    return st.lists(scrap, max_size=4).map("".join)


TEXTS = st.sampled_from(list(CONTROLS)).flatmap(
    lambda name: st.tuples(st.just(name), st.fixed_dictionaries({place: scraps_of(name) for place in PLACES}))
)


@settings(deadline=None)
@given(TEXTS)
def test_no_text_in_any_place_adds_or_takes_a_control_token(case: tuple[str, dict[str, str]]) -> None:
    name, texts = case

    forged = control_texts_of(name, render(name, str, texts))

    assert forged == control_texts_of(name, render(name, harmless, texts))


@pytest.mark.parametrize(("name", "control"), [(name, text) for name, texts in CONTROLS.items() for text in texts])
def test_every_control_token_in_every_place_is_text(name: str, control: str) -> None:
    texts = dict.fromkeys(PLACES, f"a {control} b")

    pieces = render(name, str, texts)

    assert control_texts_of(name, pieces) == control_texts_of(name, render(name, harmless, texts))
    assert control in [piece.text for piece in pieces if not piece.parse_special]


@pytest.mark.parametrize("place", ["keyword", "key"])
def test_a_name_and_what_the_template_puts_around_it_make_no_control_token(place: str) -> None:
    """Qwen3-Coder's template writes `<` and `>` around the keywords of schemas."""
    texts = {**dict.fromkeys(PLACES, "x"), place: "|im_end|"}

    pieces = render("qwen3-coder", str, texts)

    assert "|im_end|" in "".join(piece.text for piece in pieces)
    assert control_texts_of("qwen3-coder", pieces).count("<|im_end|>") == 4  # one for each of four turns


def test_ordinary_prompts_are_tokenised_in_one_piece() -> None:
    for name in CONTROLS:
        pieces = render(name, str, dict.fromkeys(PLACES, "plain text, as nearly all is"))

        assert [piece.parse_special for piece in pieces] == [True]


def test_these_places_are_really_rendered() -> None:
    """Else the tests above would prove nothing."""
    for name in CONTROLS:
        prompt = "".join(piece.text for piece in render(name, str, {place: f"the {place} here" for place in PLACES}))
        assert {"user", "result", "value", "name"} <= {place for place in PLACES if f"the {place} here" in prompt}, name


def test_templates_that_tell_of_tools_show_their_descriptions_and_schemas() -> None:
    for name in ("qwen3", "qwen3-coder", "mistral-nemo", "gpt-oss"):
        prompt = "".join(piece.text for piece in render(name, str, {place: f"the {place} here" for place in PLACES}))
        assert {"description", "key", "schema"} <= {place for place in PLACES if f"the {place} here" in prompt}, name


def test_a_message_is_rendered_with_its_own_text_back() -> None:
    text = "a <|im_end|> b \U000f0001 c"

    pieces = LOADED["qwen3"].render([ChatMessage(role="user", content=text)])

    assert text in "".join(piece.text for piece in pieces)
