"""The loads of the chat benchmark: what is sent, to what size of server, and which figure counts.

Each is a promise to users: (a) many strangers at a time, (b) many questions to one document, (c) a stream that goes on
while somebody pastes a book, (d) more text than memory, (e) answers that quote their sources, (o) strangers who come
when they like instead of when the server is ready for them.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.chat_figures import outcome_of, overlapping_gaps
from benchmarks.figures import Outcome
from benchmarks.load import Answer, Traffic, ask, closed_loop, open_loop, run_traffic
from benchmarks.prompts import Prompts
from server.loadgen.answer import Body
from server.loadgen.figures import distinct_errors, percentiles
from server.loadgen.loops import poisson_arrivals

MODEL_ID = "smollm2-135m-instruct"
SAMPLING: Body = {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0, "ignore_eos": True}

CAPACITY_SHARE = 0.7
"""Rate of the open loop, by llama-server's own best in load a16: busy, but with room for those who come together."""


class NotTakingPart(Exception):
    """This server, started this way, cannot carry the load at all; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Load(ABC):
    """One kind of traffic.

    Attributes:
        figure: What decides between configurations.
        more_is_better: Whether a larger `figure` is better.
        num_requests: Sent in a measured run.
        num_tuning_requests: Sent to each configuration that llama-server might be best with.
        flags_of: Another load whose best flags are this one's too; empty for a load that has its own.
        num_slots: Requests at a time that Hearth is configured for.
        context: Most tokens of one request.
        num_cells: KV cells of each server; `num_slots` whole contexts, save where that is the point.
    """

    name: str
    title: str
    figure: str
    more_is_better: bool = True
    num_requests: int
    num_tuning_requests: int = 0
    flags_of: str = ""
    num_slots: int = 16
    context: int = 2048
    num_cells: int = 32768

    def warm_up(self) -> list[Body]:
        """What is sent before anything is measured, side by side."""
        return [chat_body("Say hello.", max_tokens=8)] * 2

    @abstractmethod
    def run(self, port: int, prompts: Prompts, num_requests: int) -> Outcome:
        """Send the traffic to a server.

        Raises:
            NotTakingPart: The server does not do what the load is about.
        """


@dataclass(frozen=True, kw_only=True)
class ClosedLoop(Load):
    """So many clients, each with its next request when its last is answered."""

    num_clients: int
    bodies: Callable[[Prompts, int], list[Body]]

    def run(self, port: int, prompts: Prompts, num_requests: int) -> Outcome:
        bodies = self.bodies(prompts, num_requests)
        return outcome_of(run_traffic(closed_loop(port, bodies, num_clients=self.num_clients)))


@dataclass(frozen=True, kw_only=True)
class OpenLoop(Load):
    """Requests that come at random, `rate` a second, whether or not the server keeps up."""

    rate: float = 0.0
    bodies: Callable[[Prompts, int], list[Body]]

    def run(self, port: int, prompts: Prompts, num_requests: int) -> Outcome:
        arrivals_s = poisson_arrivals(num_requests, self.rate, seed=prompts.seed)
        return outcome_of(run_traffic(open_loop(port, self.bodies(prompts, num_requests), arrivals_s)))


@dataclass(frozen=True, kw_only=True)
class LongPrompt(Load):
    """A long prompt arrives while streams run: how long do they stand still, how long does it wait?"""

    num_streams: int = 8
    num_words: int = 5500
    start_within_s: float = 10.0
    head_start_s: float = 2.0

    def run(self, port: int, prompts: Prompts, num_requests: int) -> Outcome:
        assert num_requests == 1
        now_s = time.perf_counter()
        bodies = [chat_body(prompts.words(40), max_tokens=4000) for _ in range(self.num_streams)]
        streams = [Answer(body, now_s) for body in bodies]
        long = Answer(chat_body(prompts.words(self.num_words), max_tokens=8), now_s)
        return _gaps_outcome(streams, long, run_traffic(self._send(port, streams, long)))

    async def _send(self, port: int, streams: list[Answer], long: Answer) -> list[Answer]:
        tasks = [asyncio.create_task(ask(port, stream)) for stream in streams]
        try:
            await _until(lambda: all(stream.chunk_s or stream.done_s for stream in streams), self.start_within_s)
            await asyncio.sleep(self.head_start_s)
            num_running = sum(bool(stream.chunk_s and not stream.done_s) for stream in streams)
            if num_running < len(streams):
                raise NotTakingPart(f"only {num_running} of the {len(streams)} streams run at the same time")
            long.due_s = time.perf_counter()
            await ask(port, long)
            # The gap that is open when the long prompt is answered counts too, so see where it ends.
            await _until(lambda: all(_last_s(stream) > long.done_s for stream in streams), self.start_within_s)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        return [*streams, long]


def _gaps_outcome(streams: list[Answer], long: Answer, traffic: Traffic) -> Outcome:
    answers = [*streams, long]
    num_good = sum(not answer.error for answer in answers)
    figures = {
        "completion_rate": num_good / len(answers),
        **percentiles("usual_gap", [gap for one in streams for gap in overlapping_gaps(one, 0, long.due_s)], 50, 99),
        "client_cpu_share": traffic.client_cpu_share,
    }
    if long.chunk_s:
        first_s = long.chunk_s[0]
        during = [gap for one in streams for gap in overlapping_gaps(one, long.due_s, first_s)]
        num_chunks = sum(long.due_s < at <= first_s for one in streams for at in one.chunk_s)
        figures |= {
            "long_ttft_s": long.ttft_s,
            "long_prompt_tokens": float(long.num_prompt_tokens),
            "chunks_per_s_meanwhile": num_chunks / long.ttft_s,
            **percentiles("gap", during, 50, 99, 100),
        }
    return Outcome(figures, distinct_errors(answer.error for answer in answers))


def _last_s(stream: Answer) -> float:
    """When the stream last gave a sign of life; it is over for good when it failed or ended."""
    if stream.done_s:
        return float("inf")
    return stream.chunk_s[-1]


async def _until(condition: Callable[[], bool], timeout_s: float) -> None:
    """Return when the condition holds, or at the end of the time."""
    deadline = time.perf_counter() + timeout_s
    while not condition() and time.perf_counter() < deadline:  # noqa: ASYNC110 (chunks come by the hundred)
        await asyncio.sleep(0.005)


# ---- what is asked


def chat_body(text: str, *, max_tokens: int) -> Body:
    return {"model": MODEL_ID, "messages": [{"role": "user", "content": text}], "max_tokens": max_tokens, **SAMPLING}


def unique_bodies(prompts: Prompts, num_requests: int) -> list[Body]:
    return [chat_body(prompts.words(90), max_tokens=64) for _ in range(num_requests)]


def shared_prefix_bodies(prompts: Prompts, num_requests: int) -> list[Body]:
    prefix = prompts.words(600)
    return [chat_body(f"{prefix}\n\n{prompts.words(32)}?", max_tokens=32) for _ in range(num_requests)]


def overfull_bodies(prompts: Prompts, num_requests: int) -> list[Body]:
    """About 350 tokens each, answer included: 16 of them do not fit into 4,096 cells, nor one into a 16th of these."""
    return [chat_body(prompts.words(200), max_tokens=100) for _ in range(num_requests)]


def quoting_bodies(prompts: Prompts, num_requests: int) -> list[Body]:
    """At temperature 0 the model answers this mostly in the text's own words; `quoted_share` says how far it did."""
    question = "What do we know about these buildings? Answer with the sentences of the text."
    return [
        chat_body(f"{' '.join(prompts.facts(5))}\n\n{question}", max_tokens=128) | {"temperature": 0}
        for _ in range(num_requests)
    ]


LOADS: tuple[Load, ...] = (
    ClosedLoop(
        name="a1", title="unique prompts, 1 client", figure="tokens_per_s",
        num_clients=1, bodies=unique_bodies, num_requests=6, num_tuning_requests=6,
    ),
    ClosedLoop(
        name="a4", title="unique prompts, 4 clients", figure="tokens_per_s",
        num_clients=4, bodies=unique_bodies, num_requests=12, num_tuning_requests=4,
    ),
    ClosedLoop(
        name="a16", title="unique prompts, 16 clients", figure="tokens_per_s",
        num_clients=16, bodies=unique_bodies, num_requests=32, num_tuning_requests=16,
    ),
    ClosedLoop(
        name="a64", title="unique prompts, 64 clients", figure="tokens_per_s",
        num_clients=64, bodies=unique_bodies, num_requests=64, num_tuning_requests=32,
        num_slots=64, context=512,
    ),
    ClosedLoop(
        name="b", title="600 shared words, 16 clients", figure="requests_per_s",
        num_clients=16, bodies=shared_prefix_bodies, num_requests=48, num_tuning_requests=16,
    ),
    LongPrompt(
        name="c", title="a 6,000-token prompt among 8 streams", figure="gap_max_s", more_is_better=False,
        num_requests=1, num_tuning_requests=1, context=8192, num_cells=16 * 8192,
    ),
    ClosedLoop(
        name="d", title="more text than 4,096 KV cells, 16 clients", figure="tokens_per_s",
        num_clients=16, bodies=overfull_bodies, num_requests=24, num_tuning_requests=16,
        context=4096, num_cells=4096,
    ),
    ClosedLoop(
        name="e", title="answers that quote their context, 1 client", figure="tokens_per_s",
        num_clients=1, bodies=quoting_bodies, num_requests=5, num_tuning_requests=1,
    ),
    OpenLoop(
        name="o", title="unique prompts at random times, 70 % of capacity", figure="ttft_p95_s",
        more_is_better=False, bodies=unique_bodies, num_requests=24, flags_of="a16",
    ),
)  # fmt: skip
