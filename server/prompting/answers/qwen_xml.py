"""Qwen3-Coder, Qwen 3.5, Nemotron 3: a tag for each argument, whose text is JSON only where the schema says so.

<tool_call>
<function=get_weather>
<parameter=city>
Oslo
</parameter>
</function>
</tool_call>
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from server.prompting.answers import hermes
from server.prompting.answers.answer_writer import AnswerWriter, Call
from server.prompting.answers.text_source import Reading, TextSource
from server.prompting.answers.tool_format import NAME, Schemas, TextWithCalls, ToolFormat

FUNCTION, END_FUNCTION = "<function=", "</function>"
PARAMETER, END_PARAMETER = "<parameter=", "</parameter>"

_KEY = re.compile(r"[^>\n]*")
_WORDS = {"true": "true", "false": "false", "none": "null"}
"""JSON for what models write as Python."""


def _read_calls(source: TextSource, answer: AnswerWriter, opener: str, schemas: Schemas) -> Reading[None]:
    """NOTE: the tag around a function may be missing; or it holds JSON, which is what a grammar makes models write."""
    beginning = [opener]
    if opener == hermes.OPENER:
        yield from source.copy_run(hermes.AROUND_CALLS, beginning.append)
        if (yield from source.peek()) == "{":
            yield from hermes.read_tagged_json(source, answer, beginning="".join(beginning))
            return
        if not (yield from source.take_literal(FUNCTION)):
            answer.content("".join(beginning))
            return
        beginning.append(FUNCTION)
    read_call = partial(_read_function, source, schemas=schemas)
    if (yield from answer.attempt_call(source, read_call, beginning="".join(beginning))):
        yield from source.skip_space()
        yield from source.take_literal(hermes.CLOSER)


def _read_function(source: TextSource, call: Call, *, schemas: Schemas) -> Reading[bool]:
    name = yield from source.collect_run(NAME)
    if not (yield from source.take_literal(">")) or not call.name(name):
        return False
    arguments: list[str] = []
    yield from source.skip_space()
    while (yield from source.take_literal(PARAMETER)):
        argument = yield from _read_argument(source, schemas[name])
        if argument is None:
            return False
        arguments.append(argument)
        yield from source.skip_space()
    call.arguments(f"{{{', '.join(arguments)}}}")
    return (yield from source.take_literal(END_FUNCTION))


def _read_argument(source: TextSource, schema: Mapping[str, Any]) -> Reading[str | None]:
    """A member of a JSON object; None where it is not closed."""
    key = yield from source.collect_run(_KEY)
    value: list[str] = []
    is_open = yield from source.take_literal(">")
    if not is_open or (yield from source.copy_until((END_PARAMETER,), value.append)) is None:
        return None
    text = "".join(value).removeprefix("\n").removesuffix("\n")
    properties = schema.get("properties")
    own = properties.get(key) if isinstance(properties, dict) else None
    return f"{json.dumps(key, ensure_ascii=False)}: {_to_json(text, own if isinstance(own, dict) else {})}"


def _to_json(text: str, schema: Mapping[str, Any]) -> str:
    """The value as JSON: by its type, else by what it looks like."""
    if schema.get("type") != "string":
        try:
            return json.dumps(json.loads(text, parse_constant=_refuse), ensure_ascii=False)
        except (ValueError, RecursionError):
            if text.lower() in _WORDS:
                return _WORDS[text.lower()]
    return json.dumps(text, ensure_ascii=False)


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")


QWEN_XML = ToolFormat(
    frame=hermes.FRAME,
    read=TextWithCalls((hermes.OPENER, FUNCTION), _read_calls),
    opener=hermes.OPENER,
    is_own_frame=False,
)
