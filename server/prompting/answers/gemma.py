"""Gemma 4 and FunctionGemma: a notation like JSON, with bare keys and quotes of its own.

<|tool_call>call:get_weather{city:<|"|>Oslo<|"|>,days:3}<tool_call|>
<start_function_call>call:get_weather{city:<escape>Oslo<escape>}<end_function_call>
"""

from __future__ import annotations

from functools import partial

from server.prompting.answers.answer_writer import AnswerWriter, Call
from server.prompting.answers.json_text import copy_json
from server.prompting.answers.text_source import Reading, TextSource
from server.prompting.answers.tool_format import NAME, CallFrame, Schemas, TextWithCalls, ToolFormat


def _format(opener: str, closer: str, quote: str) -> ToolFormat:
    """NOTE: plain JSON is understood, too, and is what the frame and so the grammar has: schemas are about JSON."""

    def read_calls(source: TextSource, answer: AnswerWriter, found: str, _schemas: Schemas) -> Reading[None]:
        if (yield from answer.attempt_call(source, partial(read_call, source), beginning=found)):
            yield from source.skip_space()
            yield from source.take_literal(closer)

    def read_call(source: TextSource, call: Call) -> Reading[bool]:
        if not (yield from source.take_literal("call:")):
            return False
        name = yield from source.collect_run(NAME)
        return call.name(name) and (yield from copy_json(source, call.arguments, quote=quote))

    return ToolFormat(
        frame=CallFrame(before=f"{opener}call:", middle="", after=closer, between=""),
        read=TextWithCalls((opener,), read_calls),
        opener=opener,
        control_texts=(opener, closer, quote),
        is_own_frame=False,
    )


GEMMA = _format("<|tool_call>", "<tool_call|>", '<|"|>')
FUNCTION_GEMMA = _format("<start_function_call>", "<end_function_call>", "<escape>")
