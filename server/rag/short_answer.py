"""One short answer of a chat model that the server itself has asked: greedy, and collected before it is looked at."""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass

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
)

_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
"""What models that reason write before they answer."""


@dataclass(frozen=True)
class ShortAnswer:
    """`is_cut`: the model had more to say than it was allowed to."""

    text: str
    is_cut: bool = False


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
        urgency=urgency,
        tenant=tenant,
    )
    pieces: list[str] = []
    is_cut = False
    async with aclosing(model.generate(request)) as events:
        async for event in events:
            if isinstance(event, Delta):
                pieces.append(event.text)
            elif isinstance(event, Finished):
                is_cut = event.reason == "length"
    return ShortAnswer(_THOUGHT.sub("", "".join(pieces)).strip(), is_cut)
