"""Turns a conversation into search queries that stand by themselves, with the help of a chat model.

The question as it was asked is always among them, and what the model writes is looked at before it is believed: a weak
model, a slow one or none leaves a search that is no worse than without it.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from server.errors import HearthError
from server.protocols import ChatModel
from server.rag.short_answer import NO_WORK, ShortAnswer, ask
from server.rag.words import is_telling, words_of
from server.types import DEFAULT_TENANT, ChatMessage, Urgency, Usage

logger = logging.getLogger(__name__)

MAX_QUERIES = 3
"""That the model may write; the question itself comes on top."""

MAX_QUERY_CHARS = 200
"""Longer lines are explanations, not queries."""

MAX_TOKENS = 96
"""Of the answer: three queries, and a few words around them."""

MAX_MESSAGES = 6
MAX_MESSAGE_CHARS = 600
"""Of the conversation that the model is shown: its end, and of each message the beginning."""

_INSTRUCTION = """\
Write the search queries that find what answers the last message of this conversation. Write one to three of them, one \
per line. Each is short and can be understood alone: write the name of a thing in place of words like "it". Write \
nothing but the queries.

{conversation}

Search queries:"""

_NUMBERING = re.compile(r"(?:(?:search )?quer(?:y|ies)\s*\d*:|[(\[]?\d{1,2}[.):\]]|[-*•–])\s+", re.IGNORECASE)
_QUOTES = " \t\"'`“”„‘’«»[],"


@dataclass(frozen=True)
class Rewriting:
    """What to search for, and what asking the model took; one that did not answer does not tell."""

    queries: list[str]
    usage: Usage = NO_WORK


class QueryRewriter:
    """Asks any chat model. Holds nothing, so one serves everybody."""

    async def rewrite(
        self, chat_model: ChatModel, messages: Sequence[ChatMessage], *, timeout_s: float, tenant: str = DEFAULT_TENANT
    ) -> Rewriting:
        """Return what to search for: the last user message as it stands, then up to `MAX_QUERIES` of the model's.

        Never fails: where the model cannot answer within `timeout_s`, or writes nothing of use, the message is all
        there is. Empty if no user has said anything.
        """
        question = next((message.content for message in reversed(messages) if message.role == "user"), "")
        if not question.strip():
            return Rewriting([])
        conversation = _conversation(messages)
        prompt = ChatMessage(role="user", content=_INSTRUCTION.format(conversation="\n".join(conversation)))
        try:
            async with asyncio.timeout(timeout_s):
                answer = await ask(
                    chat_model, [prompt], max_tokens=MAX_TOKENS, urgency=Urgency(timeout_s=timeout_s), tenant=tenant
                )
        except TimeoutError:
            return _without(question, f"the chat model did not answer within {timeout_s:g} s")
        except HearthError as exc:
            return _without(question, exc.message)
        return Rewriting([question, *_queries(answer, question, conversation)], answer.usage)


def _conversation(messages: Sequence[ChatMessage]) -> list[str]:
    """The last turns, a line each: white space in a message says nothing that a query needs."""
    said = [message for message in messages if message.role in ("user", "assistant") and message.content.strip()]
    return [
        f"{message.role}: {' '.join(message.content[: 2 * MAX_MESSAGE_CHARS].split())[:MAX_MESSAGE_CHARS]}"
        for message in said[-MAX_MESSAGES:]
    ]


def _queries(answer: ShortAnswer, question: str, conversation: Iterable[str]) -> list[str]:
    """The lines that can be queries, each once: those that do not just repeat the question, and have a word of the
    conversation in them."""
    said = (line.partition(": ")[2] for line in conversation)
    spoken = {word for each in said for word in words_of(each) if is_telling(word)}
    known = {tuple(words_of(question))}
    found: list[str] = []
    for line in _lines(answer):
        words = tuple(words_of(line))
        if words not in known and len(line) <= MAX_QUERY_CHARS and spoken.intersection(words):
            known.add(words)
            found.append(line)
    return found[:MAX_QUERIES]


def _lines(answer: ShortAnswer) -> Iterator[str]:
    lines = answer.text.splitlines()
    for line in lines[:-1] if answer.is_cut else lines:  # half a query asks for something else
        text = line.strip()
        if numbering := _NUMBERING.match(text):
            text = text[numbering.end() :]
        text = text.strip(_QUOTES)
        if text and not text.endswith(":"):  # "Here are the queries:"
            yield text


def _without(question: str, reason: str) -> Rewriting:
    logger.warning("search without rewriting", extra={"reason": reason})
    return Rewriting([question])
