"""Puts rules and sources into a conversation, so that a model's template takes it and its beginning stays the same."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial

import msgspec

from server.errors import InvalidRequest
from server.protocols import ChatModel
from server.rag.citations import CitationFilter
from server.types import ChatMessage, ChatPrompt

TEMPLATE_ERROR = "template_error"

Messages = tuple[ChatMessage, ...]
Frame = Callable[[str], ChatPrompt]
"""Returns a conversation with a text in it."""


def without_citations(prompt: ChatPrompt) -> ChatPrompt:
    """Numbers in earlier answers are those of other sources: a model that sees them repeats them."""
    num_earlier = len(prompt.messages) - prompt.continues_last  # what is begun goes on as it is
    earlier, begun = prompt.messages[:num_earlier], prompt.messages[num_earlier:]
    return msgspec.structs.replace(prompt, messages=(*map(_without_numbers, earlier), *begun))


def _without_numbers(message: ChatMessage) -> ChatMessage:
    if message.role != "assistant":
        return message
    citations = CitationFilter(num_sources=0)
    return msgspec.structs.replace(message, content=citations.feed(message.content) + citations.finish())


async def fitting_frame(model: ChatModel, prompt: ChatPrompt, system_prompt: str) -> tuple[Frame, int]:
    """Return a way to put sources into a conversation that the model's template takes, and the tokens of the rest."""
    as_system: Frame = partial(_in_system_message, prompt, system_prompt)
    as_user: Frame = partial(_in_first_message, prompt, system_prompt)
    try:
        [token_ids] = await model.token_ids([as_system(".")])
    except InvalidRequest as exc:
        if exc.code != TEMPLATE_ERROR:
            raise
        [token_ids] = await model.token_ids([as_user(".")])
        return as_user, len(token_ids)
    return as_system, len(token_ids)


def _in_system_message(prompt: ChatPrompt, system_prompt: str, text: str) -> ChatPrompt:
    """Before the conversation, so that questions on the same sources begin alike and are computed once."""
    instructions, conversation = _taken_apart(prompt.messages, system_prompt)
    system = ChatMessage(role="system", content="\n\n".join([*instructions, text]))
    return msgspec.structs.replace(prompt, messages=(system, *conversation))


def _in_first_message(prompt: ChatPrompt, system_prompt: str, text: str) -> ChatPrompt:
    """The same for models that know no system messages."""
    instructions, conversation = _taken_apart(prompt.messages, system_prompt)
    if conversation[:1] and conversation[0].role == "user":
        instructions, conversation = [*instructions, text, conversation[0].content], conversation[1:]
    else:
        instructions = [*instructions, text]
    first = ChatMessage(role="user", content="\n\n".join(instructions))
    return msgspec.structs.replace(prompt, messages=(first, *conversation))


def _taken_apart(messages: Messages, system_prompt: str) -> tuple[list[str], Messages]:
    """Split a conversation into the instructions that it begins with, and what is said then."""
    leading = list(itertools.takewhile(lambda message: message.role in ("system", "developer"), messages))
    instructions = [text for text in (system_prompt, *(message.content for message in leading)) if text.strip()]
    return instructions, messages[len(leading) :]
