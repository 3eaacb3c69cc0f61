"""gpt-oss: an answer is a row of messages, each with a channel and maybe a recipient.

<|channel|>analysis<|message|>Thinking...<|end|>
<|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city": "Oslo"}<|call|>
<|start|>assistant<|channel|>final<|message|>It is cold.<|return|>

The prompt ends with `<|start|>assistant`; `<|call|>` and `<|return|>` end the generation and are not seen here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial

from server.prompting.answers.answer_writer import AnswerWriter, Call
from server.prompting.answers.json_text import copy_json
from server.prompting.answers.text_source import SPACE, Reading, TextSource, ignore
from server.prompting.answers.thoughts import ThoughtTags
from server.prompting.answers.tool_format import CallFrame, Schemas, ToolFormat

START, CHANNEL, CONSTRAIN, MESSAGE = "<|start|>", "<|channel|>", "<|constrain|>", "<|message|>"
END, CALL, RETURN = "<|end|>", "<|call|>", "<|return|>"
ANALYSIS, COMMENTARY, FINAL = "analysis", "commentary", "final"
FUNCTIONS = "functions."

_ENDS = (START, END, CALL, RETURN)
_WORD = re.compile(r"[^\s<]*")


@dataclass
class _Header:
    """What stands before a message.

    Attributes:
        text: All of it, in pieces.
        recipient: Whom the message goes to; empty for the user.
    """

    text: list[str]
    channel: str = ""
    recipient: str = ""


def _read(source: TextSource, answer: AnswerWriter, _schemas: Schemas, _thoughts: ThoughtTags | None) -> Reading[None]:
    ending: str | None = END
    while (yield from source.peek()):
        header = _Header([START] if ending == START else [])
        is_message = yield from _read_header(source, header)
        text = "".join(header.text)
        if not is_message:
            answer.content(text)
            ending = yield from source.copy_until(_ENDS, answer.content)
        elif header.recipient.startswith(FUNCTIONS):
            read_call = partial(_read_call, source, name=header.recipient.removeprefix(FUNCTIONS))
            is_call = yield from answer.attempt_call(source, read_call, beginning=text)
            ending = yield from source.copy_until(_ENDS, ignore if is_call else answer.content)
        elif header.channel == ANALYSIS and header.recipient in ("", "assistant"):
            answer.begin_reasoning()
            ending = yield from source.copy_until(_ENDS, answer.reasoning)
            answer.end_reasoning()
        else:
            ending = yield from source.copy_until(_ENDS, answer.content)


def _read_header(source: TextSource, header: _Header) -> Reading[bool]:
    """Read what comes before a message; false at what belongs to no header, which stays unread."""
    token: str | None = START
    if not header.text:
        yield from source.copy_run(SPACE, header.text.append)
        token = yield from _take_token(source, header)
        if token is None and (yield from source.peek(3)) != "to=":
            return False
    while token != MESSAGE:
        word = yield from source.collect_run(_WORD)
        if token is None and not word:
            return False
        header.text.append(word)
        if token == CHANNEL:
            header.channel = word
        elif word.startswith("to="):
            header.recipient = word.removeprefix("to=")
        yield from source.copy_run(SPACE, header.text.append)
        token = yield from _take_token(source, header)
    return True


def _take_token(source: TextSource, header: _Header) -> Reading[str | None]:
    for token in (CHANNEL, MESSAGE, CONSTRAIN, START):
        if (yield from source.take_literal(token)):
            header.text.append(token)
            return token
    return None


def _read_call(source: TextSource, call: Call, *, name: str) -> Reading[bool]:
    yield from source.skip_space()
    return call.name(name) and (yield from copy_json(source, call.arguments))


HARMONY = ToolFormat(
    frame=CallFrame(
        before=f"{CHANNEL}{COMMENTARY} to={FUNCTIONS}",
        middle=f" {CONSTRAIN}json{MESSAGE}",
        between=f"{END}{START}assistant",
    ),
    read=_read,
    opener=None,
    control_texts=(START, CHANNEL, CONSTRAIN, MESSAGE, END, CALL, RETURN),
    is_single=True,
    is_channelled=True,
)
