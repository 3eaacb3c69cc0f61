"""What hostile requests are made of: the routes they go to, good bodies for these, and what is expected."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

CHAT, EMBEDDING, RERANK = "smollm2-135m-instruct", "all-minilm-l6-v2", "ms-marco-minilm-l12-v2"
CHATS, COMPLETIONS, EMBEDDINGS, RERANKS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/rerank"
STORES, RESPONSES, MESSAGES = "/v1/vector_stores", "/v1/responses", "/v1/messages"
TOKENIZE, TEMPLATE = "/v1/tokenize", "/v1/chat/apply_template"

CONTEXT = 512
"""Tokens of the chat model, that a context may be filled to its last token within a second."""

JSON_TYPE = {"content-type": "application/json"}
REFUSED = (400,)
SERVED = (200,)

Body = dict[str, Any]


@dataclass(frozen=True)
class Hostile:
    """One request.

    Attributes:
        row: Of the checklist.
        content: The body; where `is_raw`, all that goes over the wire.
        statuses: Those that are right.
    """

    row: str
    path: str
    content: bytes
    statuses: tuple[int, ...] = REFUSED
    headers: dict[str, str] = field(default_factory=lambda: dict(JSON_TYPE))
    is_raw: bool = False


Maker = Callable[[random.Random], Hostile]


def say(text: str, **more: object) -> Body:
    return {"model": CHAT, "messages": [{"role": "user", "content": text}], "max_tokens": 1, **more}


VALID: dict[str, Body] = {
    CHATS: say("hi"),
    COMPLETIONS: {"model": CHAT, "prompt": "hi", "max_tokens": 1},
    EMBEDDINGS: {"model": EMBEDDING, "input": "hi"},
    RERANKS: {"model": RERANK, "query": "hi", "documents": ["ho"]},
    STORES: {"name": "x"},
    RESPONSES: {"model": CHAT, "input": "hi", "max_output_tokens": 1, "store": False},
    MESSAGES: say("hi"),
    TOKENIZE: {"model": CHAT, "prompt": "hi"},
    TEMPLATE: say("hi"),
}


def altered(row: str, path: str, statuses: tuple[int, ...] = REFUSED, /, **fields: object) -> Hostile:
    """A good request but for these fields."""
    return Hostile(row, path, json.dumps({**VALID[path], **fields}).encode(), statuses)


def any_path(chance: random.Random) -> str:
    return chance.choice(list(VALID))
