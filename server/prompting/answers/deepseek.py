"""DeepSeek V3.1, and V3 and R1 before it, which put more around a call.

<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"a": 1}<｜tool▁call▁end｜><｜tool▁calls▁end｜>

<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather
```json
{"a": 1}
```<｜tool▁call▁end｜><｜tool▁calls▁end｜>
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from server.prompting.answers.answer_writer import AnswerWriter, Call
from server.prompting.answers.json_text import copy_json
from server.prompting.answers.text_source import Reading, TextSource
from server.prompting.answers.tool_format import NAME, CallFrame, Schemas, TextWithCalls, ToolFormat

CALLS, END_CALLS = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
CALL, SEPARATOR, END_CALL = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"


def _read_calls(source: TextSource, answer: AnswerWriter, opener: str, _schemas: Schemas) -> Reading[None]:
    beginning = opener
    if opener == CALLS:
        yield from source.skip_space()
        if not (yield from source.take_literal(CALL)):
            answer.content(opener)
            return
        beginning += CALL
    while (yield from answer.attempt_call(source, partial(_read_call, source), beginning=beginning)):
        yield from source.skip_space()
        yield from source.take_literal("```")
        yield from source.take_literal(END_CALL)
        yield from source.skip_space()
        if (yield from source.take_literal(END_CALLS)) or not (yield from source.take_literal(CALL)):
            return
        beginning = CALL


def _read_call(source: TextSource, call: Call) -> Reading[bool]:
    name = yield from source.collect_run(NAME)
    if not (yield from source.take_literal(SEPARATOR)):
        return False
    if (yield from source.peek()) not in "{ \n":  # so that was the kind of tool
        name = yield from source.collect_run(NAME)
        yield from source.skip_space()
        yield from source.take_literal("```json")
    yield from source.skip_space()
    return call.name(name) and (yield from copy_json(source, call.arguments))


DEEPSEEK = ToolFormat(
    frame=CallFrame(beginning=CALLS, before=CALL, middle=SEPARATOR, after=END_CALL, between="", end=END_CALLS),
    read=TextWithCalls((CALLS, CALL), _read_calls),
    opener=CALLS,
    control_texts=(CALLS, END_CALLS, CALL, SEPARATOR, END_CALL),
)

DEEPSEEK_R1 = replace(
    DEEPSEEK,
    frame=CallFrame(
        beginning=CALLS,
        before=f"{CALL}function{SEPARATOR}",
        middle="\n```json\n",
        after=f"\n```{END_CALL}",
        end=END_CALLS,
    ),
)
