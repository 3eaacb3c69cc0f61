"""Finding out how a server wants to be asked: which options it takes, and how many words make how many tokens."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from server.loadgen.answer import Answer
from server.loadgen.connection import connected
from server.loadgen.exchange import Reply
from server.loadgen.prompts import Prompts
from server.loadgen.target import Target
from server.loadgen.workloads import (
    Messages,
    Options,
    Query,
    Workload,
    chat_workload,
    embedding_workload,
    random_messages,
    random_queries,
    random_texts,
    rerank_workload,
)
from server.types import ModelKind

_OPTIONS: dict[ModelKind, tuple[Options, ...]] = {
    "chat": ({"ignore_eos": True}, {}),
    "embedding": ({"encoding_format": "base64"}, {}),
    "rerank": ({},),
}
"""What is tried, best first: answers of one length, and vectors as OpenAI's SDK asks for them."""

_WITHOUT: dict[ModelKind, str] = {
    "chat": "the server does not take ignore_eos: answers end where the model ends them",
    "embedding": "the server does not take encoding_format: it writes vectors as numbers",
}

_PROBE_WORDS = (16, 80)
_NO_FIELD = (400, 422)


class ServerRefuses(Exception):
    """The server answers not even a single request; the message says what it says."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be sent.

    Attributes:
        input_tokens: Of a prompt, a text, or a query with one document, as the server counts them.
        batch: Texts or documents of one request.
        prompts: What to send in turn, in the kind's shape; empty: random text.
    """

    kind: ModelKind
    model: str
    input_tokens: int
    answer_tokens: int
    batch: int
    prompts: Sequence[Messages | str | Query] = ()
    seed: int


async def prepare(target: Target, plan: Plan, *, timeout_s: float) -> tuple[Workload[Any, Any], list[str]]:
    """Ask a few questions, and make what is to be sent of the answers; also returns what people should know of it.

    Raises:
        ServerRefuses: It does not answer.
    """
    options, first = await _first_answer(target, plan, timeout_s=timeout_s)
    notes = [] if options == _OPTIONS[plan.kind][0] or plan.prompts else [_WITHOUT[plan.kind]]
    if plan.prompts:
        return _workload(plan, options), notes
    second = await _probe(target, plan, options, num_words=_PROBE_WORDS[1], timeout_s=timeout_s)
    num_words = words_for(plan.input_tokens, *zip(_PROBE_WORDS, (_num_tokens(first), _num_tokens(second)), strict=True))
    if not _num_tokens(first):
        notes.append("the server does not count tokens: a word of a prompt and a chunk of an answer count as one")
    return _workload(plan, options, num_words=num_words), notes


def words_for(num_tokens: int, short: tuple[int, int], long: tuple[int, int]) -> int:
    """How many words make so many tokens, going by two texts of known words and tokens; at least one.

    What the template adds is the same for both. Without counts, a word is a token.
    """
    per_word = (long[1] - short[1]) / (long[0] - short[0])
    if per_word <= 0:
        return num_tokens
    added = short[1] - per_word * short[0]
    return max(1, round((num_tokens - added) / per_word))


async def _first_answer(target: Target, plan: Plan, *, timeout_s: float) -> tuple[Options, Answer | Reply]:
    for options in _OPTIONS[plan.kind]:
        outcome = await _probe(target, plan, options, num_words=_PROBE_WORDS[0], timeout_s=timeout_s)
        if not outcome.error:
            return options, outcome
        if outcome.status not in _NO_FIELD:
            break
    raise ServerRefuses(outcome.error)


async def _probe(target: Target, plan: Plan, options: Options, *, num_words: int, timeout_s: float) -> Answer | Reply:
    """Send one request, with one document of a rerank: its tokens are those of a pair."""
    small = Plan(
        kind=plan.kind,
        model=plan.model,
        input_tokens=0,
        answer_tokens=min(plan.answer_tokens, 8),
        batch=1,
        prompts=plan.prompts[:1],
        seed=plan.seed + 1,
    )
    workload = _workload(small, options, num_words=num_words)
    async with connected(target, timeout_s=timeout_s) as connection:
        outcome: Answer | Reply = await workload.send(connection, next(workload.asks), 0.0)
    return outcome


def _workload(plan: Plan, options: Options, *, num_words: int = 1) -> Workload[Any, Any]:
    prompts = Prompts(plan.seed)
    given: Any = itertools.cycle(plan.prompts) if plan.prompts else None
    if plan.kind == "chat":
        messages = given or random_messages(prompts, num_words)
        return chat_workload(plan.model, messages, max_tokens=plan.answer_tokens, options=options)
    if plan.kind == "embedding":
        texts = given or random_texts(prompts, num_words)
        return embedding_workload(plan.model, texts, batch=plan.batch, options=options)
    return rerank_workload(plan.model, given or random_queries(prompts, num_words, num_documents=plan.batch))


def _num_tokens(outcome: Answer | Reply) -> int:
    return outcome.num_prompt_tokens if isinstance(outcome, Answer) else outcome.num_tokens
