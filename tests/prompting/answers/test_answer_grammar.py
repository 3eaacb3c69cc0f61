"""Answers under a grammar: what the compiler lets through is what the reader understands, and nothing else."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from server.prompting.answers.answer_grammar import CONTENT, MAX_CALLS, AnswerShape, answer_grammar
from server.prompting.answers.harmony import HARMONY
from server.prompting.answers.hermes import HERMES
from server.prompting.answers.known_formats import TOOL_FORMATS
from server.prompting.answers.llama3 import LLAMA3
from server.prompting.answers.thoughts import THINK
from server.prompting.answers.tool_format import ToolFormat
from tests.fakes.spoken import SCHEMAS, WEATHER, Spoken, read

OPTIONS = {"whitespace_pattern": r"\x20"}
END_ID = 256
STRICT: Mapping[str, Mapping[str, Any] | None] = {
    "get_weather": {**WEATHER, "additionalProperties": False},
    "get_time": None,
}
GOOD, WRONG, UNKNOWN = ("get_weather", '{"city": "Oslo"}'), ("get_weather", '{"town": "Oslo"}'), ("sing", "{}")

FORMATS = pytest.mark.parametrize(
    ("tools", "controls"),
    [(tools, controls) for tools in TOOL_FORMATS.values() for controls in ((), tools.control_texts)],
    ids=itertools.chain.from_iterable((name, f"{name} in tokens") for name in TOOL_FORMATS),
)


class Vocabulary:
    """A token for each byte, one that ends a text, and control tokens, which have no bytes."""

    eos_token_id = END_ID
    bos_token_id = None

    def __init__(self, controls: Sequence[str]) -> None:
        self.ids = {text: END_ID + 1 + index for index, text in enumerate(dict.fromkeys(controls))}
        self.tokens = [bytes([byte]) for byte in range(256)] + [b""] * (len(self.ids) + 1)

    def __call__(self, text: str | bytes) -> list[int]:
        return list(text if isinstance(text, bytes) else text.encode())

    def tokens_of(self, text: str) -> list[int]:
        parts = re.split(f"({'|'.join(map(re.escape, self.ids))})", text) if self.ids else [text]
        return [token for part in parts for token in ([self.ids[part]] if part in self.ids else part.encode())]


def allows(shape: AnswerShape, text: str, controls: Sequence[str] = (), content: dict[str, Any] | None = None) -> bool:
    """Whether the text is a whole answer."""
    vocabulary = Vocabulary(controls)
    grammars = [{"lark_grammar": answer_grammar(shape, vocabulary.ids, OPTIONS)}, *([content] if content else [])]
    tokenizer = LLTokenizer(TokenizerWrapper(vocabulary), eos_token=[END_ID])
    matcher = LLMatcher(tokenizer, json.dumps({"grammars": grammars}), log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    tokens = vocabulary.tokens_of(text)
    return matcher.validate_tokens(tokens) == len(tokens) and matcher.consume_tokens(tokens) and matcher.is_accepting()


def written(tools: ToolFormat, *calls: tuple[str, str]) -> str:
    return tools.frame.write(calls[:1] if tools.is_single else calls)


def plain(tools: ToolFormat, text: str) -> str:
    return f"<|channel|>final<|message|>{text}" if tools is HARMONY else text


@FORMATS
def test_calls_that_must_come_are_all_there_is(tools: ToolFormat, controls: Sequence[str]) -> None:
    shape = AnswerShape(format=tools, schemas=STRICT, is_required=True)

    assert allows(shape, written(tools, GOOD, ("get_time", '{"any": ["thing"]}')), controls)
    assert not allows(shape, plain(tools, "It is cold."), controls)
    assert not allows(shape, "", controls)


@FORMATS
def test_calls_that_may_come_are_right_or_not_at_all(tools: ToolFormat, controls: Sequence[str]) -> None:
    shape = AnswerShape(format=tools, schemas=STRICT)

    assert allows(shape, plain(tools, "It is cold."), controls)
    assert allows(shape, written(tools, GOOD, GOOD), controls)
    if tools.opener:
        assert allows(shape, f"I look.\n{written(tools, GOOD)}", controls)
    for call in (WRONG, UNKNOWN, ("get_time", "[]"), ("get_time", '{"a": 1')):
        assert not allows(shape, written(tools, call), controls)


@FORMATS
def test_what_it_allows_is_read_as_calls(tools: ToolFormat, controls: Sequence[str]) -> None:
    text = written(tools, GOOD, ("get_time", "{}"))
    assert allows(AnswerShape(format=tools, schemas=STRICT), text, controls)

    calls = [GOOD] if tools.is_single else [GOOD, ("get_time", "{}")]
    assert read(text, tools, trusts_calls=True) == Spoken("", "", calls)


def test_one_call_where_they_must_not_be_parallel() -> None:
    for is_required in (True, False):
        shape = AnswerShape(format=HERMES, schemas=STRICT, is_parallel=False, is_required=is_required)

        assert allows(shape, HERMES.frame.write([GOOD]))
        assert not allows(shape, HERMES.frame.write([GOOD, GOOD]))


def test_a_weak_model_cannot_call_for_ever() -> None:
    shape = AnswerShape(format=HERMES, schemas=STRICT, is_required=True)

    assert allows(shape, HERMES.frame.write([GOOD] * MAX_CALLS))
    assert not allows(shape, HERMES.frame.write([GOOD] * (MAX_CALLS + 1)))


@pytest.mark.parametrize("controls", [(), ("<think>", "</think>")], ids=["text", "tokens"])
def test_thoughts_come_before_a_call_that_must_come(controls: Sequence[str]) -> None:
    shape = AnswerShape(thoughts=THINK, format=HERMES, schemas=STRICT, is_required=True)
    call = HERMES.frame.write([GOOD])

    assert allows(shape, f"<think>\n{{Hm.}}</think>\n\n{call}", controls)
    assert allows(shape, call, controls)
    assert not allows(shape, f"Hm.</think>{call}", controls)


@pytest.mark.parametrize("controls", [(), ("<think>", "</think>")], ids=["text", "tokens"])
def test_thoughts_that_the_prompt_has_begun_must_end(controls: Sequence[str]) -> None:
    shape = AnswerShape(thoughts=THINK, is_thinking=True, format=HERMES, schemas=STRICT, is_required=True)
    call = HERMES.frame.write([GOOD])

    assert allows(shape, f"Hm.</think>\n\n{call}", controls)
    assert not allows(shape, call, controls)


def test_a_clients_grammar_is_for_what_comes_behind_thoughts_and_beside_calls() -> None:
    content = {
        "name": CONTENT,
        "json_schema": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
    }
    shape = AnswerShape(thoughts=THINK, format=HERMES, schemas=STRICT, has_content_grammar=True)

    assert allows(shape, '<think>Hm.</think>\n{"a": 1}', content=content)
    assert allows(shape, f"<think>Hm.</think>\n{HERMES.frame.write([GOOD])}", content=content)
    assert not allows(shape, "<think>Hm.</think>\nHello.", content=content)
    assert not allows(shape, "Hello.", content=content)


def test_a_clients_grammar_is_for_the_final_channel() -> None:
    content = {"name": CONTENT, "json_schema": {"type": "object"}}
    shape = AnswerShape(format=HARMONY, schemas={}, has_content_grammar=True)
    analysis = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"

    for controls in ((), HARMONY.control_texts):
        assert allows(shape, f"{analysis}<|channel|>final<|message|>{{}}", controls, content)
        assert not allows(shape, f"{analysis}<|channel|>final<|message|>Hello.", controls, content)


def test_a_braced_answer_is_a_call_where_nothing_else_tells_them() -> None:
    shape = AnswerShape(format=LLAMA3, schemas=STRICT)

    assert allows(shape, " See {this}.")
    assert not allows(shape, '{"temperature": 1}')


def test_a_client_cannot_loosen_its_schema_by_options_of_the_compiler() -> None:
    schema = {"type": "object", "not": {}, "x-guidance": {"lenient": True}}
    shape = AnswerShape(format=HERMES, schemas={"get_weather": schema}, is_required=True)

    grammar = answer_grammar(shape, {}, OPTIONS)

    assert "lenient" not in grammar


def test_every_function_may_be_called() -> None:
    shape = AnswerShape(format=HERMES, schemas=dict.fromkeys(SCHEMAS), is_required=True)

    for name in SCHEMAS:
        assert allows(shape, HERMES.frame.write([(name, "{}")]))
