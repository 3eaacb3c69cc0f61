"""What is enforced of an answer, and what is only read: by what the request wants and the model speaks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from server.bindings.llama_vocab import LlamaVocab
from server.engine.grammar_compiler import GrammarCompiler
from server.engine.token_mask import TokenMask
from server.errors import InvalidRequest
from server.prompting.answers.harmony import HARMONY
from server.prompting.answers.hermes import HERMES
from server.prompting.answers.qwen_xml import QWEN_XML
from server.prompting.answers.thoughts import THINK, ThoughtTags
from server.prompting.answers.tool_format import ToolFormat
from server.prompting.model_speech import ModelSpeech
from server.types import ChatMessage, ChatPrompt, GenerateRequest, Grammar, SamplingParams, TextPrompt, Tool, ToolUse
from server.workers.answer_plans import AnswerPlan, AnswerPlans
from tests.fakes.spoken import Spoken, hear

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = Tool(name="get_weather", parameters=json.dumps(SCHEMA))
STRICT = Tool(name="get_weather", parameters=json.dumps(SCHEMA), strict=True)
ODD = Tool(name="odd", parameters='{"not": {}}')
JSON_FORMAT = Grammar("json_object", "", "response_format")
MASK = cast(TokenMask, object())
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>'


@dataclass
class Vocab:
    """Two tokens, one of which is a control token."""

    control_ids: dict[str, int] = field(default_factory=lambda: {"<|start|>": 1})
    pieces: list[bytes] = field(default_factory=lambda: [b"a", b""])

    def pieces_with(self, control_texts: Iterable[str]) -> list[bytes]:
        return [b"a", b"<|start|>" if "<|start|>" in control_texts else b""]


@dataclass
class Compiler:
    """Takes any grammar but those that `refuses` says; keeps what it was asked for."""

    refuses: Callable[[Grammar], bool] = lambda _: False
    asked: list[tuple[Grammar, Grammar | None]] = field(default_factory=list)

    def mask(self, grammar: Grammar, *, content: Grammar | None = None) -> TokenMask:
        self.asked.append((grammar, content))
        if self.refuses(grammar):
            raise InvalidRequest("it cannot be honoured", param=grammar.param)
        return MASK


def mentions_not(grammar: Grammar) -> bool:
    return '"not"' in grammar.text


def plan(
    *tools: Tool,
    speech: ToolFormat = HERMES,
    thoughts: ThoughtTags | None = None,
    compiler: Compiler | None = None,
    grammar: Grammar | None = None,
    stop: tuple[str, ...] = (),
    is_thinking: bool = False,
    **use: Any,
) -> AnswerPlan:
    names = tuple(tool.name for tool in tools)
    prompt = ChatPrompt((ChatMessage(role="user", content="x"),), ToolUse(tools=tools, names=names, **use))
    request = GenerateRequest(request_id="r", prompt=prompt, sampling=SamplingParams(stop=stop), grammar=grammar)
    told = ModelSpeech(speech, thoughts, needs_instructions=False, needs_spelling=False)
    plans = AnswerPlans(told, cast(LlamaVocab, Vocab()), cast(GrammarCompiler, compiler or Compiler()))
    return plans.plan(request, is_thinking=is_thinking)


def spoken(planned: AnswerPlan, *pieces: str) -> Spoken:
    assert planned.reader is not None
    return hear(cast(Any, planned.reader), pieces)


def comes_in_pieces(planned: AnswerPlan) -> bool:
    assert planned.reader is not None
    return planned.reader.push(CALL[:50]) is not None


def test_plain_chat_is_neither_enforced_nor_read() -> None:
    assert plan() == AnswerPlan([b"a", b""])


def test_a_raw_prompt_is_not_read_whatever_the_model_speaks() -> None:
    told = ModelSpeech(HARMONY, None, needs_instructions=False, needs_spelling=False)
    plans = AnswerPlans(told, cast(LlamaVocab, Vocab()), cast(GrammarCompiler, Compiler()))
    request = GenerateRequest(request_id="r", prompt=TextPrompt("x"), sampling=SamplingParams())

    assert plans.plan(request, is_thinking=False) == AnswerPlan([b"a", b""])


def test_a_grammar_alone_is_compiled_as_it_is() -> None:
    compiler = Compiler()

    assert plan(grammar=JSON_FORMAT, compiler=compiler).mask is MASK
    assert compiler.asked == [(JSON_FORMAT, None)]


def test_thoughts_are_read_without_a_grammar() -> None:
    planned = plan(thoughts=THINK)

    assert planned.mask is None
    assert spoken(planned, "<think>Hm</think>Yes") == Spoken("Yes", "Hm")


def test_thoughts_that_the_prompt_has_begun() -> None:
    assert spoken(plan(thoughts=THINK, is_thinking=True), "Hm</think>Yes") == Spoken("Yes", "Hm")


def test_a_clients_grammar_comes_behind_the_thoughts() -> None:
    compiler = Compiler()

    plan(thoughts=THINK, grammar=JSON_FORMAT, compiler=compiler)

    [(frame, content)] = compiler.asked
    assert (frame.kind, content) == ("answer", JSON_FORMAT)
    assert "</think>" in frame.text


@pytest.mark.parametrize("use", [{}, {"is_required": True}])
def test_calls_in_json_are_enforced_and_come_in_pieces(use: dict[str, Any]) -> None:
    planned = plan(WEATHER, **use)

    assert planned.mask is MASK
    assert comes_in_pieces(planned)


def test_schemas_are_enforced_where_calls_must_come_or_are_strict() -> None:
    def text_for(*tools: Tool, **use: Any) -> str:
        compiler = Compiler()
        plan(*tools, compiler=compiler, **use)
        return compiler.asked[0][0].text

    assert "city" in text_for(STRICT)
    assert "city" in text_for(WEATHER, is_required=True)
    assert "city" not in text_for(WEATHER)


def test_calls_that_are_not_json_are_read_only_unless_somebody_insists() -> None:
    loose = plan(WEATHER, speech=QWEN_XML)

    assert loose.mask is None
    assert not comes_in_pieces(loose)
    assert plan(STRICT, speech=QWEN_XML).mask is MASK
    assert plan(WEATHER, speech=QWEN_XML, is_required=True).mask is MASK
    assert plan(WEATHER, speech=QWEN_XML, grammar=JSON_FORMAT).mask is MASK


def test_a_stop_text_may_cut_a_call_so_none_is_delivered_before_it_is_whole() -> None:
    assert not comes_in_pieces(plan(WEATHER, stop=("Oslo",)))


def test_only_functions_that_may_be_called_are() -> None:
    other = CALL.replace("get_weather", "launch")

    assert spoken(plan(WEATHER, stop=("x",)), other) == Spoken(other)


def test_one_call_at_most_where_they_must_not_be_parallel() -> None:
    planned = plan(WEATHER, is_parallel=False)

    assert len(spoken(planned, CALL, CALL).calls) == 1


def test_a_strict_schema_that_cannot_be_enforced_is_named() -> None:
    bad = Tool(name="odd", parameters='{"not": {}}', strict=True)

    with pytest.raises(InvalidRequest) as refusal:
        plan(WEATHER, bad, compiler=Compiler(mentions_not))

    assert refusal.value.param == "tools[1].function.parameters"


def test_a_loose_schema_that_cannot_be_enforced_is_let_be() -> None:
    compiler = Compiler(mentions_not)

    planned = plan(WEATHER, ODD, is_required=True, compiler=compiler)

    assert planned.mask is MASK
    last = compiler.asked[-1][0].text
    assert '"not"' not in last and "city" in last and "odd" in last


def test_calls_nobody_insists_on_go_without_a_grammar_that_is_too_much() -> None:
    planned = plan(WEATHER, compiler=Compiler(lambda grammar: grammar.kind == "answer"))

    assert planned.mask is None
    assert spoken(planned, CALL).calls == [("get_weather", '{"city": "Oslo"}')]


def test_calls_that_must_come_are_refused_with_a_grammar_that_is_too_much() -> None:
    with pytest.raises(InvalidRequest) as refusal:
        plan(WEATHER, is_required=True, compiler=Compiler(lambda grammar: grammar.kind == "answer"))

    assert refusal.value.param == "tools"


def test_a_clients_grammar_that_is_to_blame_is_named() -> None:
    with pytest.raises(InvalidRequest) as refusal:
        plan(WEATHER, grammar=JSON_FORMAT, compiler=Compiler(lambda grammar: grammar.kind != "json_schema"))

    assert refusal.value.param == "response_format"


def test_channels_are_read_always_and_their_tokens_are_seen() -> None:
    planned = plan(speech=HARMONY)

    assert planned.pieces == [b"a", b"<|start|>"]
    assert spoken(planned, "<|channel|>final<|message|>Yes") == Spoken("Yes")
