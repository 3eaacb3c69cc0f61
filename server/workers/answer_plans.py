"""How the answer to a request is kept to its form and read: by what the model speaks, and what the client wants.

A grammar is made where the form must hold: for a client's own grammar beside thoughts or calls, for calls that must
come, for strict tools; and for all calls that the model writes in JSON anyway, which can then be streamed as they come.
Everything else is only read, and counts where it is right.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from server.bindings.llama_vocab import LlamaVocab
from server.engine.grammar_compiler import GrammarCompiler
from server.engine.grammar_text import JSON_OPTIONS
from server.engine.token_mask import TokenMask
from server.errors import InvalidRequest
from server.prompting.answers.answer_grammar import AnswerShape, answer_grammar
from server.prompting.answers.answer_reader import AnswerReader
from server.prompting.answers.answer_writer import AnswerWriter
from server.prompting.answers.text_source import Reading, TextSource
from server.prompting.answers.tool_format import Schemas, read_text
from server.prompting.model_speech import ModelSpeech
from server.types import ChatPrompt, GenerateRequest, Grammar, Tool, ToolUse


@dataclass(frozen=True)
class AnswerPlan:
    """What one request needs.

    Attributes:
        pieces: Bytes that each token adds to the text that is read.
        mask: Which tokens may come; None: all.
        reader: Finds reasoning and calls in the text; None: it is all content.
    """

    pieces: list[bytes]
    mask: TokenMask | None = None
    reader: AnswerReader | None = None


@dataclass(frozen=True)
class _Form:
    """What an answer has to be, as far as it is enforced."""

    mask: TokenMask | None
    makes_calls_sure: bool = False


class AnswerPlans:
    """Makes plans for the answers of one model. Called by the front threads, with grammars by one of them only."""

    def __init__(self, speech: ModelSpeech, vocab: LlamaVocab, grammars: GrammarCompiler) -> None:
        self._speech = speech
        self._vocab = vocab
        self._grammars = grammars
        tags = (speech.thoughts.opening, speech.thoughts.closing) if speech.thoughts else ()
        self._control_texts = (*speech.tools.control_texts, *tags)
        self._control_ids = {text: id_ for text, id_ in vocab.control_ids.items() if text in self._control_texts}
        self._pieces = vocab.pieces_with(self._control_texts)

    def plan(self, request: GenerateRequest, *, is_thinking: bool) -> AnswerPlan:
        """Make the plan for a request, whose prompt may end in the midst of reasoning.

        Raises:
            InvalidRequest: What it wants cannot be enforced; `param` names the grammar, or the schema of a tool.
            Overloaded: See `GrammarCompiler.mask`.
        """
        if not isinstance(request.prompt, ChatPrompt):
            return AnswerPlan(self._vocab.pieces, self._grammars.mask(request.grammar) if request.grammar else None)
        use, speech = request.prompt.tool_use, self._speech
        form = self._enforce(request, use, is_thinking=is_thinking)
        if not (use.names or speech.thoughts or speech.tools.is_channelled):
            return AnswerPlan(self._vocab.pieces, form.mask)
        reader = self._make_reader(request, use, form, is_thinking=is_thinking)
        return AnswerPlan(self._pieces, form.mask, reader)

    # ---- reading

    def _make_reader(self, request: GenerateRequest, use: ToolUse, form: _Form, *, is_thinking: bool) -> AnswerReader:
        speech = self._speech
        schemas: Schemas = {tool.name: _schema_of(tool) for tool in use.tools if tool.name in use.names}
        read_answer = speech.tools.read if use.names or speech.tools.is_channelled else read_text

        def read(source: TextSource, answer: AnswerWriter) -> Reading[None]:
            if speech.thoughts:
                yield from speech.thoughts.read_first(source, answer, is_open=is_thinking)
            yield from read_answer(source, answer, schemas, speech.thoughts)

        writer = AnswerWriter(
            schemas.keys(),
            max_calls=None if use.is_parallel else 1,
            # A stop text may cut a call that a grammar would have made whole.
            trusts_calls=form.makes_calls_sure and not request.sampling.stop,
        )
        return AnswerReader(read, writer)

    # ---- enforcing

    def _enforce(self, request: GenerateRequest, use: ToolUse, *, is_thinking: bool) -> _Form:
        speech, grammar = self._speech, request.grammar
        is_strict = any(tool.strict for tool in use.tools if tool.name in use.names)
        is_wanted = use.is_required or is_strict or grammar is not None
        has_calls = bool(use.names) and (is_wanted or speech.tools.is_own_frame)
        shape = AnswerShape(
            thoughts=speech.thoughts,
            is_thinking=is_thinking,
            format=speech.tools if has_calls or speech.tools.is_channelled else None,
            schemas=_schemas_of(use) if has_calls else {},
            is_required=use.is_required,
            is_parallel=use.is_parallel,
            has_content_grammar=grammar is not None,
        )
        if has_calls:
            return self._enforce_calls(shape, use, grammar, is_wanted=is_wanted)
        if grammar and (speech.thoughts or speech.tools.is_channelled):
            return _Form(self._mask(shape, grammar))
        return _Form(self._grammars.mask(grammar) if grammar else None)

    def _enforce_calls(self, shape: AnswerShape, use: ToolUse, grammar: Grammar | None, *, is_wanted: bool) -> _Form:
        """With calls, or if nobody insists on them and they are too much, without a grammar of their own."""
        try:
            return _Form(self._mask(shape, grammar), makes_calls_sure=True)
        except InvalidRequest:
            if grammar:
                self._grammars.mask(grammar)  # it may be to blame, and then says so itself
        try:
            return _Form(self._mask(self._without_bad_schemas(shape, use), grammar), makes_calls_sure=True)
        except InvalidRequest:
            if is_wanted:
                raise
            return _Form(None)

    def _mask(self, shape: AnswerShape, grammar: Grammar | None) -> TokenMask:
        text = answer_grammar(shape, self._control_ids, JSON_OPTIONS)
        return self._grammars.mask(Grammar("answer", text, "tools"), content=grammar)

    def _without_bad_schemas(self, shape: AnswerShape, use: ToolUse) -> AnswerShape:
        """Any arguments for the tools whose schemas cannot be enforced, unless they are strict."""
        good = dict(shape.schemas)
        for index, tool in enumerate(use.tools):
            if good.get(tool.name) is not None:
                try:
                    self._grammars.mask(Grammar("json_schema", tool.parameters, f"tools[{index}].function.parameters"))
                except InvalidRequest:
                    if tool.strict:
                        raise
                    good[tool.name] = None
        return replace(shape, schemas=good)


def _schemas_of(use: ToolUse) -> dict[str, Mapping[str, Any] | None]:
    """The schemas that are enforced: where calls must come, all; else those of strict tools."""
    return {
        tool.name: _schema_of(tool) if use.is_required or tool.strict else None
        for tool in use.tools
        if tool.name in use.names
    }


def _schema_of(tool: Tool) -> dict[str, Any]:
    schema = json.loads(tool.parameters)
    assert isinstance(schema, dict)
    return schema
