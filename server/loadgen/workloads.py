"""What is sent: chats, embeddings or reranks, each request like the others but for its text."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic

import msgspec

from server.loadgen import answer, exchange
from server.loadgen.answer import Answer, Body
from server.loadgen.connection import Connection
from server.loadgen.exchange import Ask, Reply
from server.loadgen.figures import Figures, Window, chat_figures, reply_figures
from server.loadgen.loops import AskT, OutcomeT, Send
from server.loadgen.prompts import Prompts

Messages = list[dict[str, Any]]
Options = Mapping[str, object]
"""Fields of a request that not every server takes."""

_QUERY_WORDS = 8


@dataclass(frozen=True)
class Query:
    """What a reranker sorts."""

    query: str
    documents: list[str]


@dataclass(frozen=True)
class Workload(Generic[AskT, OutcomeT]):
    """Requests without end, how one is sent, and what answers come to."""

    asks: Iterator[AskT]
    send: Send[AskT, OutcomeT]
    figures: Callable[[Sequence[OutcomeT], Window], Figures]


def chat_workload(
    model: str, messages: Iterator[Messages], *, max_tokens: int, options: Options
) -> Workload[Body, Answer]:
    bodies = ({"model": model, "messages": each, "max_tokens": max_tokens, **options} for each in messages)
    return Workload(bodies, _send_chat, chat_figures)


def embedding_workload(model: str, texts: Iterator[str], *, batch: int, options: Options) -> Workload[Ask, Reply]:
    lists = (list(itertools.islice(texts, batch)) for _ in itertools.count())
    asks = (Ask("/embeddings", {"model": model, "input": each, **options}, len(each)) for each in lists)
    return Workload(asks, _send_counted, reply_figures)


def rerank_workload(model: str, queries: Iterator[Query]) -> Workload[Ask, Reply]:
    asks = (
        Ask("/rerank", {"model": model, "query": each.query, "documents": each.documents}, len(each.documents))
        for each in queries
    )
    return Workload(asks, _send_counted, reply_figures)


def random_texts(prompts: Prompts, num_words: int) -> Iterator[str]:
    return (prompts.words(num_words) for _ in itertools.count())


def random_messages(prompts: Prompts, num_words: int) -> Iterator[Messages]:
    return (as_messages(text) for text in random_texts(prompts, num_words))


def random_queries(prompts: Prompts, num_words: int, *, num_documents: int) -> Iterator[Query]:
    texts = random_texts(prompts, num_words)
    return (Query(prompts.words(_QUERY_WORDS), list(itertools.islice(texts, num_documents))) for _ in itertools.count())


def as_messages(text: str) -> Messages:
    return [{"role": "user", "content": text}]


async def _send_chat(connection: Connection, body: Body, due_s: float) -> Answer:
    return await answer.ask(connection, Answer(body, due_s))


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    total_tokens: int = 0


class _Counted(msgspec.Struct):
    usage: _Usage | None = None


async def _send_counted(connection: Connection, ask: Ask, due_s: float) -> Reply:
    """Keep of the answer what was counted: a hundred thousand vectors would fill the client's memory."""
    reply = await exchange.send(connection, ask, due_s)
    if not reply.error:
        try:
            usage = msgspec.json.decode(reply.content, type=_Counted).usage or _Usage()
            reply.num_tokens = usage.prompt_tokens or usage.total_tokens
        except msgspec.ValidationError:
            pass  # another shape, which counts nothing
        except msgspec.DecodeError as exc:
            reply.error = f"the answer is not JSON: {exc}"
    reply.content = b""
    return reply
