"""The loads of the embeddings and rerank benchmarks: how many send what, and what is looked at."""

from __future__ import annotations

import asyncio
import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks import load as chat
from benchmarks.chat_loads import unique_bodies
from benchmarks.encoder_asks import (
    Asks,
    answer_of,
    bulk_lists,
    embed_probe,
    mixed_lists,
    rerank_lists,
    rerank_probe,
    short_texts,
)
from benchmarks.encoder_figures import computed_items, figures_of, run_timed
from benchmarks.encoder_traffic import closed_loop, open_loop
from benchmarks.figures import Outcome
from benchmarks.prompts import Prompts
from server.loadgen.exchange import Ask, Reply
from server.loadgen.figures import distinct_errors
from server.loadgen.loops import after, poisson_arrivals

HEADLINE_S = 8.0
BULK_CLIENTS = 4
HEAD_START_S = 1.0
"""Of a bulk job before anybody else comes: its lists are queued by then."""


@dataclass(frozen=True, kw_only=True)
class Load(ABC):
    """One kind of traffic."""

    name: str
    title: str

    @abstractmethod
    def run(self, port: int, prompts: Prompts) -> Outcome:
        """Send the traffic to a server."""


@dataclass(frozen=True, kw_only=True)
class Probe(Load):
    """A few requests of known content, whose answers must be the same everywhere; not timed, and a warm-up as well."""

    asks: Sequence[Ask]

    def run(self, port: int, prompts: Prompts) -> Outcome:
        num_clients = len(self.asks)
        replies, _ = run_timed(closed_loop(port, iter(self.asks), num_clients=1, is_over=lambda: False, keep=True))
        run_timed(closed_loop(port, itertools.cycle(self.asks), num_clients=num_clients, is_over=after(2.0)))
        errors = distinct_errors(reply.error for reply in replies)
        return Outcome({}, errors, {"answers": [] if errors else [answer_of(reply) for reply in replies]})


@dataclass(frozen=True, kw_only=True)
class Throughput(Load):
    """So many clients, each with its next request when its last is answered."""

    num_clients: int
    asks: Asks
    seconds: float = HEADLINE_S

    def run(self, port: int, prompts: Prompts) -> Outcome:
        asks = self.asks(prompts)
        replies, cpu = run_timed(self._send(port, asks))
        return Outcome({**figures_of(replies), **cpu}, errors_of(replies))

    async def _send(self, port: int, asks: Iterator[Ask]) -> list[Reply]:
        return await closed_loop(port, asks, num_clients=self.num_clients, is_over=after(self.seconds))


@dataclass(frozen=True, kw_only=True)
class DuringBulk(Load):
    """Short requests of people who wait, at random times, while a bulk job runs."""

    people: Asks
    bulk: Asks
    rate: float = 20.0
    seconds: float = 11.0

    def run(self, port: int, prompts: Prompts) -> Outcome:
        (people, bulk), cpu = run_timed(self._send(port, prompts))
        interactive = figures_of(people)
        figures = {
            "completion_rate": interactive.pop("completion_rate"),
            **interactive,
            **{f"bulk_{name}": value for name, value in figures_of(bulk).items()},
            **cpu,
        }
        return Outcome(figures, errors_of([*people, *bulk]))

    async def _send(self, port: int, prompts: Prompts) -> tuple[list[Reply], list[Reply]]:
        job = asyncio.create_task(
            closed_loop(port, self.bulk(prompts), num_clients=BULK_CLIENTS, is_over=after(self.seconds))
        )
        await asyncio.sleep(HEAD_START_S)
        count = int(self.rate * (self.seconds - HEAD_START_S))
        arrivals_s = poisson_arrivals(count, self.rate, seed=prompts.seed)
        return await open_loop(port, self.people(Prompts(prompts.seed + 1)), arrivals_s), await job


@dataclass(frozen=True, kw_only=True)
class Again(Load):
    """A corpus is embedded, then once more unchanged. Figures are those of the second time, `cold_` of the first."""

    num_lists: int
    bulk: Asks

    def run(self, port: int, prompts: Prompts) -> Outcome:
        warm_up, corpus = (
            list(itertools.islice(self.bulk(each), self.num_lists)) for each in (Prompts(prompts.seed + 1), prompts)
        )
        run_timed(self._send(port, warm_up[:BULK_CLIENTS]))
        cold, _ = run_timed(self._send(port, corpus))
        again, cpu = run_timed(self._send(port, corpus))
        figures = {
            **figures_of(again),
            **{f"cold_{name}": value for name, value in figures_of(cold).items()},
            "computed_items": float(computed_items(again)),
            **cpu,
        }
        return Outcome(figures, errors_of([*cold, *again]))

    async def _send(self, port: int, corpus: Sequence[Ask]) -> list[Reply]:
        return await closed_loop(port, iter(corpus), num_clients=BULK_CLIENTS, is_over=lambda: False, keep=True)


@dataclass(frozen=True, kw_only=True)
class ChatDuringBulk(Load):
    """Chats alone, and the same number of others while a bulk job runs."""

    bulk: Asks
    num_clients: int = 4
    num_chats: int = 16

    def run(self, port: int, prompts: Prompts) -> Outcome:
        run_timed(self._chat(port, prompts, self.num_clients))  # warms up
        alone, _ = run_timed(self._chat(port, prompts, self.num_chats))
        (during, bulk), cpu = run_timed(self._chat_during_bulk(port, prompts))
        alone_per_s, during_per_s = tokens_per_s(alone), tokens_per_s(during)
        figures = {
            "completion_rate": sum(not answer.error for answer in (*alone, *during)) / (2 * self.num_chats),
            "alone_tokens_per_s": alone_per_s,
            "tokens_per_s": during_per_s,
            "chat_share": during_per_s / alone_per_s,
            **{f"bulk_{name}": value for name, value in figures_of(bulk).items()},
            **cpu,
        }
        chat_errors = [answer.error for answer in (*alone, *during)]
        return Outcome(figures, distinct_errors([*chat_errors, *(reply.error for reply in bulk)]))

    async def _chat(self, port: int, prompts: Prompts, num_chats: int) -> list[chat.Answer]:
        return await chat.closed_loop(port, unique_bodies(prompts, num_chats), num_clients=self.num_clients)

    async def _chat_during_bulk(self, port: int, prompts: Prompts) -> tuple[list[chat.Answer], list[Reply]]:
        is_over = asyncio.Event()
        job = asyncio.create_task(
            closed_loop(port, self.bulk(prompts), num_clients=BULK_CLIENTS, is_over=is_over.is_set)
        )
        await asyncio.sleep(HEAD_START_S)
        answers = await self._chat(port, prompts, self.num_chats)
        is_over.set()
        return answers, await job


def tokens_per_s(answers: Sequence[chat.Answer]) -> float:
    wall_s = max(answer.done_s for answer in answers) - min(answer.due_s for answer in answers)
    return sum(answer.num_tokens for answer in answers if not answer.error) / wall_s


def errors_of(replies: Sequence[Reply]) -> tuple[str, ...]:
    return distinct_errors(reply.error for reply in replies)


GRID_S = 5.0
"""For loads that nothing is required of, which are there for the shape of the curves."""


def _lists_of_8(num_clients: int, seconds: float = GRID_S) -> Load:
    title = f"{num_clients} client{'s' * (num_clients > 1)} x lists of 8"
    return Throughput(
        name=f"c{num_clients}", title=title, num_clients=num_clients, asks=mixed_lists(8), seconds=seconds
    )


def _sixteen_clients(list_size: int) -> Load:
    title = f"16 clients x lists of {list_size}"
    return Throughput(name=f"l{list_size}", title=title, num_clients=16, asks=mixed_lists(list_size), seconds=GRID_S)


EMBEDDING_LOADS: tuple[Load, ...] = (
    Probe(name="probe", title="the same vectors from all", asks=embed_probe()),
    _lists_of_8(1),
    _lists_of_8(4),
    _lists_of_8(16, HEADLINE_S),
    _lists_of_8(32),
    _sixteen_clients(1),
    _sixteen_clients(64),
    Throughput(name="short", title="16 clients x single texts of 8 words", num_clients=16, asks=short_texts),
    DuringBulk(name="bulk", title="queries while 4 clients embed lists of 64", people=short_texts, bulk=bulk_lists),
    Again(name="again", title="1,024 texts, unchanged, once more", num_lists=16, bulk=bulk_lists),
    ChatDuringBulk(name="chat", title="4 chats while 4 clients embed lists of 64", bulk=bulk_lists),
)

RERANK_LOADS: tuple[Load, ...] = (
    Probe(name="probe", title="the same scores from all", asks=rerank_probe()),
    Throughput(name="rerank", title="4 clients x 32 documents of 64 words", num_clients=4, asks=rerank_lists),
)
