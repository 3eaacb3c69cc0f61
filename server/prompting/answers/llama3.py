"""Llama 3.1 to 3.3: the answer is a call or it is none, told by its first character or by a control token.

{"name": "get_weather", "parameters": {"city": "Oslo"}}
<|python_tag|>{"name": "get_weather", "parameters": {"city": "Oslo"}}
"""

from __future__ import annotations

import re
from functools import partial

from server.prompting.answers.answer_writer import AnswerWriter
from server.prompting.answers.call_json import read_json_call
from server.prompting.answers.text_source import Reading, TextSource, ignore
from server.prompting.answers.thoughts import ThoughtTags
from server.prompting.answers.tool_format import CallFrame, Schemas, ToolFormat, read_text

PYTHON_TAG = "<|python_tag|>"

_KEYS = ("type", "name", "id", "parameters", "arguments")
"""Another first key makes it an answer in JSON, which is not held back."""

_BETWEEN = re.compile(r"[\s;,]*")


def _read(source: TextSource, answer: AnswerWriter, schemas: Schemas, thoughts: ThoughtTags | None) -> Reading[None]:
    beginning: list[str] = []
    yield from source.copy_run(_BETWEEN, beginning.append)
    if (yield from source.take_literal(PYTHON_TAG)):
        beginning.append(PYTHON_TAG)
        yield from source.copy_run(_BETWEEN, beginning.append)
    read_call = partial(read_json_call, source, keys=_KEYS)
    while (yield from source.peek()) == "{":
        if not (yield from answer.attempt_call(source, read_call, beginning="".join(beginning))):
            beginning = []
            break
        beginning = []
        yield from source.copy_run(_BETWEEN, ignore)
    answer.content("".join(beginning))
    yield from read_text(source, answer, schemas, thoughts)


LLAMA3 = ToolFormat(
    frame=CallFrame(before='{"name": "', middle='", "parameters": ', after="}", between="; "),
    read=_read,
    opener=None,
    control_texts=(PYTHON_TAG,),
    is_single=True,
)
