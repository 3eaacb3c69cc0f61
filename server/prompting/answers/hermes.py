"""Hermes, Qwen 2.5 and 3, SmolLM3, Granite 4 and many others: JSON between tags.

<tool_call>
{"name": "get_weather", "arguments": {"city": "Oslo"}}
</tool_call>
"""

from __future__ import annotations

import re
from functools import partial

from server.prompting.answers.answer_writer import AnswerWriter
from server.prompting.answers.call_json import read_json_call
from server.prompting.answers.text_source import Reading, TextSource, ignore
from server.prompting.answers.tool_format import CallFrame, Schemas, TextWithCalls, ToolFormat

OPENER = "<tool_call>"
CLOSER = "</tool_call>"

FRAME = CallFrame(
    before=f'{OPENER}\n{{"name": "',
    middle='", "arguments": ',
    after=f"}}\n{CLOSER}",
)

AROUND_CALLS = re.compile(r"[\s,\[\]]*")
"""Some models put several calls between the tags, as a list or without more ado."""


def _read_calls(source: TextSource, answer: AnswerWriter, opener: str, _schemas: Schemas) -> Reading[None]:
    yield from read_tagged_json(source, answer, beginning=opener)


def read_tagged_json(source: TextSource, answer: AnswerWriter, *, beginning: str) -> Reading[None]:
    """Read JSON calls behind `beginning` up to the closing tag, which models forget now and then."""
    before = [beginning]
    yield from source.copy_run(AROUND_CALLS, before.append)
    while (yield from answer.attempt_call(source, partial(read_json_call, source), beginning="".join(before))):
        yield from source.copy_run(AROUND_CALLS, ignore)
        if (yield from source.take_literal(CLOSER)) or (yield from source.peek()) != "{":
            return
        before = []


HERMES = ToolFormat(frame=FRAME, read=TextWithCalls((OPENER,), _read_calls), opener=OPENER)
