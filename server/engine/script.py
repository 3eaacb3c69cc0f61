"""Scripted answers: a chat model without weights, for tests of the API, demos and clients' CI.

Pure: says what happens and when, and leaves waiting and sending to the worker.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from server.config.script_section import ScriptRule
from server.errors import InvalidRequest
from server.types import (
    ChatPrompt,
    Delta,
    Failed,
    Finished,
    FinishReason,
    Prompt,
    RenderedPart,
    RenderedPrompt,
    StreamEvent,
    TextPrompt,
    TokenIds,
    ToolCallDelta,
    Usage,
    new_call_id,
)

_PIECE = re.compile(r"\S+\s*|\s+")  # a word with the space after it counts as one token


@dataclass(frozen=True)
class ScriptStep:
    """Wait `delay_s`, then say `event`."""

    delay_s: float
    event: StreamEvent


def input_text(prompt: Prompt) -> str:
    """What the rules are matched against: what a user or a tool said last, or the whole raw prompt.

    Raises:
        InvalidRequest: The prompt is token ids, which a script cannot read.
    """
    if isinstance(prompt, ChatPrompt):
        said = (message for message in reversed(prompt.messages) if message.role in ("user", "tool"))
        return next((message.content for message in said), "")
    if isinstance(prompt, TextPrompt):
        return prompt.text
    raise InvalidRequest("a scripted model has no vocabulary; send the prompt as text", param="prompt")


def token_ids(text_or_prompt: str | Prompt) -> TokenIds:
    """A script's tokens are words, in place of whose ids it has their checksums. Raises as `input_text`."""
    if isinstance(text_or_prompt, str):
        return [zlib.crc32(piece.encode()) for piece in _PIECE.findall(text_or_prompt)]
    if isinstance(text_or_prompt, ChatPrompt):
        return [token_id for message in text_or_prompt.messages for token_id in token_ids(message.content)]
    return token_ids(input_text(text_or_prompt))


def render(prompt: ChatPrompt) -> RenderedPrompt:
    """A script has no template: what it sees of a conversation is what was said."""
    parts = [RenderedPart(message.content, parses_special=False) for message in prompt.messages]
    return RenderedPrompt(parts, token_ids(prompt))


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
    thoughts = [Delta(reasoning=piece) for piece in _PIECE.findall(rule.reasoning)]
    text, stop_text = _cut_at_stop(rule.text.replace("{input}", text), stop)
    answer = [Delta(piece) for piece in _PIECE.findall(text)]
    said, calls = [*thoughts, *answer], _calls(rule, prompt)
    reason: FinishReason = "tool_calls" if calls else "stop"
    if max_tokens is not None and len(said) > max_tokens:
        said, calls, reason, stop_text = said[:max_tokens], [], "length", None
    for delta in said:
        yield ScriptStep(delay_s, delta)
    if rule.error is not None:
        yield ScriptStep(delay_s, Failed(rule.error.code, rule.error.message))
        return
    for call in calls:
        yield ScriptStep(delay_s, Delta(tool_calls=(call,)))
    usage = Usage(
        prompt_tokens=len(token_ids(prompt)),
        completion_tokens=len(said) + len(calls),
        reasoning_tokens=min(len(thoughts), len(said)),
    )
    yield ScriptStep(0, Finished(reason, usage, stop_text=stop_text))


def _cut_at_stop(text: str, stop: Sequence[str]) -> tuple[str, str | None]:
    """What comes before the first of these texts, and which one that is."""
    found = [(at, each) for each in stop if (at := text.find(each)) >= 0]
    first, stop_text = min(found, key=lambda each: each[0], default=(len(text), None))
    return text[:first], stop_text


def _calls(rule: ScriptRule, prompt: Prompt) -> list[ToolCallDelta]:
    """The calls that the request allows: of each first the name, then its arguments, a word at a time."""
    if not isinstance(prompt, ChatPrompt):
        return []
    use = prompt.tool_use
    allowed = [call for call in rule.tool_calls if call.name in use.names]
    deltas: list[ToolCallDelta] = []
    for index, call in enumerate(allowed if use.is_parallel else allowed[:1]):
        deltas.append(ToolCallDelta(index, new_call_id(), call.name))
        deltas += [ToolCallDelta(index, arguments=piece) for piece in _PIECE.findall(json.dumps(call.arguments))]
    return deltas
