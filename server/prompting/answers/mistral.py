"""Mistral's two ways: a list of JSON calls, and since 2025 a name before its arguments.

[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Oslo"}, "id": "a1b2c3d4e"}]
[TOOL_CALLS]get_weather[ARGS]{"city": "Oslo"}
[TOOL_CALLS]get_weather[CALL_ID]a1b2c3d4e[ARGS]{"city": "Oslo"}
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial

from server.prompting.answers.answer_writer import AnswerWriter, Call
from server.prompting.answers.call_json import read_json_call
from server.prompting.answers.json_text import copy_json
from server.prompting.answers.text_source import Reading, TextSource, ignore
from server.prompting.answers.tool_format import NAME, CallFrame, Schemas, TextWithCalls, ToolFormat

OPENER, ARGUMENTS, CALL_ID = "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"

_AROUND_CALLS = re.compile(r"[\s,\[]*")
_BEHIND_LIST = re.compile(r"[\s\]]*")


def _read_calls(source: TextSource, answer: AnswerWriter, opener: str, _schemas: Schemas) -> Reading[None]:
    beginning = [opener]
    yield from source.copy_run(_AROUND_CALLS, beginning.append)
    if (yield from source.peek()) != "{":
        yield from answer.attempt_call(source, partial(_read_named, source), beginning="".join(beginning))
        return
    while (yield from answer.attempt_call(source, partial(read_json_call, source), beginning="".join(beginning))):
        beginning = []
        yield from source.copy_run(_AROUND_CALLS, beginning.append)
        if (yield from source.peek()) != "{":
            yield from source.copy_run(_BEHIND_LIST, ignore)
            return


def _read_named(source: TextSource, call: Call) -> Reading[bool]:
    name = yield from source.collect_run(NAME)
    if (yield from source.take_literal(CALL_ID)):
        yield from source.copy_run(NAME, ignore)
    yield from source.take_literal(ARGUMENTS)
    return call.name(name) and (yield from copy_json(source, call.arguments))


MISTRAL = ToolFormat(
    frame=CallFrame(before=f"{OPENER}", middle=ARGUMENTS, between=""),
    read=TextWithCalls((OPENER,), _read_calls),
    opener=OPENER,
    control_texts=(OPENER, ARGUMENTS, CALL_ID),
)

MISTRAL_LIST = replace(
    MISTRAL,
    frame=CallFrame(
        beginning=f"{OPENER}[", before='{"name": "', middle='", "arguments": ', after="}", between=", ", end="]"
    ),
)
