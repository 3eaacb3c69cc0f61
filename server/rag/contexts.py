"""Lets a chat model say of chunks where they stand in their document: a chunk rarely names what all of it is about.

One or two sentences each, written behind everything else that the model has to do. They are embedded and searched, and
never shown or quoted: what a document makes the model say can do no more than what it says itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass

from server.errors import HearthError, Overloaded
from server.protocols import ChatModel
from server.rag.documents import ParsedDocument, Span
from server.rag.outline import Outline
from server.rag.sentences import split_sentences
from server.rag.short_answer import ShortAnswer, ask
from server.rag.words import is_telling, words_of
from server.types import ChatMessage, Urgency

PRIORITY = 1 << 20
"""Behind whatever a client may ask for."""

MAX_TOKENS = 80
MAX_CHARS = 400
"""Of a context: more of it would drown the chunk."""

TIMEOUT_S = 120.0
"""For one context, the wait for others' requests included. A model that is busy for longer has no time for it."""

_OVERLOAD_WAIT_S = 5.0

_HEAD_CHARS = 1200  # of the document; with its outline the same for all of its chunks, and so computed once
_OUTLINE_CHARS = 1200
_CHUNK_CHARS = 2400

_SYSTEM = "You say in one or two short sentences what a passage of a document is about."

_PROMPT = """\
Document: {title}
Its headings: {outline}
It begins: {head}

Section: {heading}
Passage: {passage}

What is this passage about? Answer in one or two sentences that name its subject, and what it only alludes to."""
"""No examples: small models repeat them. What is the same for all chunks of a document stands in front."""

_LABEL = re.compile(r"(?:context|answer|summary)\s*:\s*", re.IGNORECASE)
_KEY_BYTES = 16


class ContextFailed(Exception):
    """The chat model does not write now; the message says why."""


@dataclass(frozen=True)
class ContextModel:
    """Who writes. `id` goes into the keys: another model writes anew."""

    id: str
    model: ChatModel


class ContextWriter:
    """Writes for all jobs, few chunks at a time: the model is there for others."""

    def __init__(self, find_model: Callable[[], ContextModel | None], *, num_at_a_time: int = 2) -> None:
        self._find_model = find_model
        self._slots = asyncio.Semaphore(num_at_a_time)

    def open(self, tenant: str, document: ParsedDocument) -> DocumentContexts:
        """Raises ContextFailed where there is no chat model."""
        found = self._find_model()
        if found is None:
            raise ContextFailed("this server has no chat model for it, see `rag.chat_model` of models.yaml")
        return DocumentContexts(found, tenant, document, self._slots)


class DocumentContexts:
    """Writes for one document."""

    def __init__(self, found: ContextModel, tenant: str, document: ParsedDocument, slots: asyncio.Semaphore) -> None:
        self._found = found
        self._tenant = tenant
        self._document = document
        self._slots = slots
        regions = Outline(document).regions
        titles = [region.path.rpartition(" > ")[2] for region in regions if region.kind == "heading"]
        self._title = document.title or next(iter(titles), "untitled")
        self._outline = "; ".join(dict.fromkeys(titles))[:_OUTLINE_CHARS]

    def key(self, span: Span) -> bytes:
        """Name what the context of a chunk is written from, as far as it makes a new one worth writing: not what
        surrounds it, or a word changed anywhere would have all of them written again."""
        parts = (self._found.id, self._document.title, span.heading, self._document.text[span.start : span.end])
        return hashlib.sha256("\0".join(parts).encode()).digest()[:_KEY_BYTES]

    async def write(self, span: Span) -> str:
        """Return the context of a chunk; empty if the model has written nothing of use.

        Raises:
            ContextFailed: It cannot write.
        """
        try:
            async with self._slots, asyncio.timeout(TIMEOUT_S):
                answer = await self._ask(span)
        except TimeoutError as exc:
            raise ContextFailed(f"the chat model had no time for it within {TIMEOUT_S:g} s") from exc
        except HearthError as exc:
            raise ContextFailed(exc.message) from exc
        return _context(answer, self._known_words(span))

    async def _ask(self, span: Span) -> ShortAnswer:
        urgency = Urgency(priority=PRIORITY, timeout_s=TIMEOUT_S)
        messages = [ChatMessage(role="system", content=_SYSTEM), ChatMessage(role="user", content=self._prompt(span))]
        while True:
            try:
                return await ask(
                    self._found.model, messages, max_tokens=MAX_TOKENS, urgency=urgency, tenant=self._tenant
                )
            except Overloaded:  # others come first
                await asyncio.sleep(_OVERLOAD_WAIT_S)

    def _prompt(self, span: Span) -> str:
        text = self._document.text
        return _PROMPT.format(
            title=self._title,
            outline=self._outline or self._title,
            head=" ".join(text[:_HEAD_CHARS].split()),
            heading=span.heading or self._title,
            passage=text[span.start : min(span.end, span.start + _CHUNK_CHARS)],
        )

    def _known_words(self, span: Span) -> set[str]:
        text = self._document.text
        known = " ".join((text[:_HEAD_CHARS], span.heading, text[span.start : span.end]))
        return {word for word in words_of(known) if is_telling(word)}


def _context(answer: ShortAnswer, known_words: set[str]) -> str:
    """Whole sentences on one line, each once, if they have anything to do with the document."""
    text = " ".join(answer.text.split()).strip("\"'`“”")
    if label := _LABEL.match(text):
        text = text[label.end() :]
    sentences = [text[start:end] for start, end in split_sentences(text[: MAX_CHARS + 1])]
    if answer.is_cut or len(text) > MAX_CHARS:
        sentences = sentences[:-1]
    text = " ".join(dict.fromkeys(sentences))
    return text if known_words.intersection(words_of(text)) else ""
