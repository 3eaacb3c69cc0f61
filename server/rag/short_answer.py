"""One short answer of a chat model that the server itself has asked: greedy, and collected before it is looked at."""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass

from server.asker import on_behalf
from server.protocols import ChatModel
from server.types import (
    DEFAULT_TENANT,
    NO_HURRY,
    ChatMessage,
    ChatPrompt,
    Delta,
    Finished,
    GenerateRequest,
    SamplingParams,
    Urgency,
    Usage,
)

NO_WORK = Usage(prompt_tokens=0)

_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
"""What models that reason write before they answer."""


@dataclass(frozen=True)
class ShortAnswer:
    """`is_cut`: the model had more to say than it was allowed to. `usage` is what it took."""

    text: str
    is_cut: bool = False
    usage: Usage = NO_WORK


async def ask(
    model: ChatModel,
    messages: Sequence[ChatMessage],
    *,
    max_tokens: int,
    urgency: Urgency = NO_HURRY,
    tenant: str = DEFAULT_TENANT,
) -> ShortAnswer:
    """Return what the model says, without its thoughts. Cancelling aborts the work. Errors as of `generate`."""
    request = GenerateRequest(
        request_id=f"own-{uuid.uuid4().hex}",
        prompt=ChatPrompt(tuple(messages)),
        sampling=SamplingParams(max_tokens=max_tokens, temperature=0.0),
        urgency=on_behalf(urgency),
        tenant=tenant,
    )
    pieces: list[str] = []
    is_cut, usage = False, NO_WORK
    async with aclosing(model.generate(request)) as events:
        async for event in events:
            if isinstance(event, Delta):
                pieces.append(event.text)
            elif isinstance(event, Finished):
                is_cut, usage = event.reason == "length", event.usage
    return ShortAnswer(_THOUGHT.sub("", "".join(pieces)).strip(), is_cut, usage)
