"""Scripted answers: a chat model without weights, for tests of the API, demos and clients' CI.

Pure: says what happens and when, and leaves waiting and sending to the worker.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from server.config.schema import ScriptRule
from server.errors import InvalidRequest
from server.types import (
    ChatPrompt,
    Delta,
    Failed,
    Finished,
    FinishReason,
    Prompt,
    StreamEvent,
    TextPrompt,
    ToolCall,
    Usage,
)

_PIECE = re.compile(r"\S+\s*|\s+")  # a word with the space after it counts as one token


@dataclass(frozen=True)
class ScriptStep:
    """Wait `delay_s`, then say `event`."""

    delay_s: float
    event: StreamEvent


def input_text(prompt: Prompt) -> str:
    """What the rules are matched against: the last user message, or the whole raw prompt.

    Raises:
        InvalidRequest: The prompt is token ids, which a script cannot read.
    """
    if isinstance(prompt, ChatPrompt):
        return next((message.content for message in reversed(prompt.messages) if message.role == "user"), "")
    if isinstance(prompt, TextPrompt):
        return prompt.text
    raise InvalidRequest("a scripted model has no vocabulary; send the prompt as text", param="prompt")


def num_prompt_tokens(prompt: Prompt) -> int:
    """Words of the whole prompt: a script's tokens."""
    if isinstance(prompt, ChatPrompt):
        return sum(_num_words(message.content) for message in prompt.messages)
    return _num_words(input_text(prompt))


def play(
    rules: Sequence[ScriptRule], prompt: Prompt, *, max_tokens: int | None, stop: Sequence[str]
) -> Iterator[ScriptStep]:
    """The steps of one answer, from the first rule that matches; the last one is `Finished` or `Failed`."""
    text = input_text(prompt)
    rule = next((rule for rule in rules if re.search(rule.match, text)), None)
    if rule is None:
        yield ScriptStep(
            0, Failed("no_matching_rule", f"no rule of the script matches {text[:80]!r}; add one", prompt.param)
        )
        return
    delay_s = rule.delay_ms / 1000
    pieces = _PIECE.findall(_cut_at_stop(rule.text.replace("{input}", text), stop))
    tool_calls = _tool_calls(rule)
    reason: FinishReason = "tool_calls" if tool_calls else "stop"
    if max_tokens is not None and len(pieces) > max_tokens:
        pieces, tool_calls, reason = pieces[:max_tokens], (), "length"
    for piece in pieces:
        yield ScriptStep(delay_s, Delta(piece))
    if rule.error is not None:
        yield ScriptStep(delay_s, Failed(rule.error.code, rule.error.message))
        return
    if tool_calls:
        yield ScriptStep(delay_s, Delta(tool_calls=tool_calls))
    usage = Usage(prompt_tokens=num_prompt_tokens(prompt), completion_tokens=len(pieces) + len(tool_calls))
    yield ScriptStep(0, Finished(reason, usage))


def _num_words(text: str) -> int:
    return len(_PIECE.findall(text))


def _cut_at_stop(text: str, stop: Sequence[str]) -> str:
    return text[: min((at for at in map(text.find, stop) if at >= 0), default=len(text))]


def _tool_calls(rule: ScriptRule) -> tuple[ToolCall, ...]:
    return tuple(
        ToolCall(f"call_{uuid.uuid4().hex[:24]}", call.name, json.dumps(call.arguments)) for call in rule.tool_calls
    )
