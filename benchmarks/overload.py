"""Overload: ten times as many requests as the server can answer, for minutes. Does it answer as many as it can?

    python -m benchmarks.overload                 # about seven minutes on two cores
    python -m benchmarks.overload --seconds 20 --out /tmp/overload.json

- Capacity: 32 clients, each with its next request when its last is answered, at a server that lets everybody wait.
- Idle: one request at a time, for what a first word takes when nobody else is there.
- Overload: requests that come at random, ten times as many as capacity. What is refused is refused at once, with a time
  to come back; memory of the process tree is taken every second. The clients run on the same machine: what they and the
  API process take of its processors is told, as it is not left to the model.
- Recovery: one request at a time again, until a first word takes what it took before.

Writes the section `overload` of benchmarks/results/overload.json. `python -m benchmarks.overload_table` puts it into
docs/performance.md, and draws it.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.bars import held_to
from benchmarks.chat_contenders import THREADS, WEIGHTS
from benchmarks.chat_loads import MODEL_ID, chat_body
from benchmarks.load import Answer, ask, closed_loop, open_loop, run_traffic
from benchmarks.prompts import Prompts
from benchmarks.results import OVERLOAD, Section, environment, save_section
from benchmarks.servers import RunningServer, hearth
from server.loadgen.answer import Body
from server.loadgen.figures import distinct_errors, percentiles
from server.loadgen.loops import poisson_arrivals
from server.loadgen.prompts import new_seed

SECONDS = 180.0
CAPACITY_S = 40.0
TIMES_CAPACITY = 10
NUM_CLIENTS = 32

NUM_IDLE = 10
MAX_WAIT_S = 4.0
"""What the server is configured to let requests wait for: the time to recovery is bounded by what has been let in. The
16 prompts that may be computed at a time take about half of it on two cores."""

WARM_UP = 0.2
"""Share of the overload after which memory counts: by then queues and caches are full."""

RECOVERED = 1.5
"""A first word takes at most so many times what the slowest took on the idle server: then it is as idle as before."""

MAX_RECOVERY_S = 60.0

MIN_GOODPUT = 0.9
MAX_REJECTION_S = 0.1
MAX_GROWTH_MB = 20.0
MAX_RECOVERED_S = 10.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of overload")
    parser.add_argument("--out", type=Path, default=OVERLOAD)
    arguments = parser.parse_args()
    prompts = Prompts(new_seed())
    with hearth(model()) as server:
        capacity = capacity_of(server.port, prompts, min(arguments.seconds, CAPACITY_S))
    with hearth(model(), limits={"max_wait_s": MAX_WAIT_S}) as server:
        figures = measure(server, prompts, arguments.seconds, capacity=capacity)
    section = {"environment": environment(), **figures}
    print({name: value for name, value in section.items() if name not in ("environment", "rss_mb", "answered")})
    save_section(section, "overload", path=arguments.out)


def measure(server: RunningServer, prompts: Prompts, seconds: float, *, capacity: float) -> Section:
    idle = run_traffic(one_by_one(server.port, prompts, count=NUM_IDLE)).answers
    with sampled(server) as memory, processors_used(server) as used_s:
        flood = flooded(server.port, prompts, seconds, rate=TIMES_CAPACITY * capacity)
    usual_s = max(answer.ttft_s for answer in idle if not answer.error)
    recovered_s = time_to_recover(server.port, prompts, RECOVERED * usual_s, since_s=flood.ended_s)
    served = [answer for answer in flood.answers if not answer.error]
    refused = [answer for answer in flood.answers if answer.status == 503]
    others = [answer for answer in flood.answers if answer.error and answer.status != 503]
    in_time = [answer for answer in served if answer.done_s <= flood.ended_s]
    goodput = len(in_time) / (flood.ended_s - flood.started_s)
    growth_mb = memory.growth_mb(since_s=flood.started_s + WARM_UP * seconds)
    rejection = percentiles("rejection", [answer.done_s - answer.sent_s for answer in refused], 50, 99)
    return {
        "seconds": seconds,
        "max_wait_s": MAX_WAIT_S,
        "runtime": dict(server.runtime),
        "capacity_per_s": round(capacity, 3),
        "offered_per_s": round(len(flood.answers) / seconds, 3),
        "goodput_per_s": round(goodput, 3),
        "num_served": len(served),
        "num_refused": len(refused),
        "num_others": len(others),
        "errors": list(distinct_errors(answer.error for answer in others)),
        "idle": percentiles("ttft", [answer.ttft_s for answer in idle if not answer.error], 50, 100),
        "served": percentiles("ttft", [answer.ttft_s for answer in served], 50, 95, 100),
        "refused": {**rejection, **percentiles("retry_after", map(_retry_after_s, refused), 50, 100)},
        "processors": {who: round(cpu_s / (flood.ended_s - flood.started_s), 3) for who, cpu_s in used_s.items()},
        "rss_mb": [[round(at_s - flood.started_s, 1), round(mb, 1)] for at_s, mb in memory.samples],
        "answered": _per_second(in_time, flood.started_s, seconds),
        "bars": {
            "goodput": held_to(goodput / capacity, least=MIN_GOODPUT),
            "rejection_p99_s": held_to(rejection.get("rejection_p99_s", 0.0), most=MAX_REJECTION_S),
            "without_time_to_come_back": held_to(
                sum(not 1 <= _retry_after_s(answer) <= 120 for answer in refused), most=0
            ),
            "failed_otherwise": held_to(len(others), most=0),
            "growth_mb": held_to(growth_mb, most=MAX_GROWTH_MB),
            "recovered_s": held_to(recovered_s, most=MAX_RECOVERED_S),
        },
    }


@contextmanager
def processors_used(server: RunningServer) -> Iterator[dict[str, float]]:
    """Seconds of processor time that clients and the API process take within the block, filled in at its end."""
    api, used_s = psutil.Process(server.pid), dict[str, float]()
    begun_s = time.process_time(), sum(api.cpu_times()[:2])
    yield used_s
    used_s |= {"clients": time.process_time() - begun_s[0], "api": sum(api.cpu_times()[:2]) - begun_s[1]}


# ---- the loads


@dataclass(frozen=True)
class Flood:
    answers: list[Answer]
    started_s: float
    ended_s: float


def capacity_of(port: int, prompts: Prompts, seconds: float) -> float:
    """Requests a second that are answered while as many wait as can be of use."""
    over_s = time.perf_counter() + seconds
    run_traffic(closed_loop(port, _until(over_s, prompts), num_clients=NUM_CLIENTS))  # warms up, and learns the pace
    started_s = time.perf_counter()
    over_s = started_s + seconds
    answers = run_traffic(closed_loop(port, _until(over_s, prompts), num_clients=NUM_CLIENTS)).answers
    in_time = [answer for answer in answers if not answer.error and answer.done_s <= over_s]
    if not in_time:
        raise RuntimeError(
            f"nothing was answered within {seconds:g} s; allow more --seconds, or see: {answers[0].error}"
        )
    return len(in_time) / seconds


def flooded(port: int, prompts: Prompts, seconds: float, *, rate: float) -> Flood:
    """Send for so long, and wait for what is being answered then."""
    arrivals_s = [at_s for at_s in poisson_arrivals(int(2 * rate * seconds), rate, seed=prompts.seed) if at_s < seconds]
    bodies = [body_of(prompts) for _ in arrivals_s]
    started_s = time.perf_counter()
    answers = run_traffic(open_loop(port, bodies, arrivals_s)).answers
    return Flood(answers, started_s, started_s + seconds)


async def one_by_one(port: int, prompts: Prompts, *, count: int) -> list[Answer]:
    return await closed_loop(port, [body_of(prompts) for _ in range(count)], num_clients=1)


def time_to_recover(port: int, prompts: Prompts, most_s: float, *, since_s: float) -> float:
    """Seconds since the end of the flood until a request has got its first word within `most_s`.

    What the flood has left is answered before anything is asked here, which is no faster than asking beside it.
    """

    async def probe() -> float:
        while time.perf_counter() - since_s < MAX_RECOVERY_S:
            answer = await ask(port, Answer(body_of(prompts), time.perf_counter()))
            if not answer.error and answer.ttft_s <= most_s:
                return answer.due_s - since_s
        return MAX_RECOVERY_S

    return asyncio.run(probe())


def body_of(prompts: Prompts) -> Body:
    return chat_body(prompts.words(15), max_tokens=16)


def model() -> dict[str, object]:
    return {
        "id": MODEL_ID,
        "kind": "chat",
        "backend": "llama_cpp",
        "source": f"file:{WEIGHTS}",
        "threads": THREADS,
        "context": 512,
        "kv_cells": 8192,
        "max_sequences": 16,
        "prefix_memory_mb": 64,  # full within seconds: what is kept on purpose shall not look like growth
    }


def _until(over_s: float, prompts: Prompts) -> Iterator[Body]:
    while time.perf_counter() < over_s:
        yield body_of(prompts)


# ---- what is measured


@dataclass
class Memory:
    """Resident memory of a process tree, over time."""

    samples: list[tuple[float, float]] = field(default_factory=list)

    def growth_mb(self, *, since_s: float) -> float:
        """By how much the last fifth of the samples since then is above the first, in the middle of each."""
        values = [mb for at_s, mb in self.samples if at_s >= since_s]
        part = max(1, len(values) // 5)
        return statistics.median(values[-part:]) - statistics.median(values[:part]) if values else 0.0


@contextmanager
def sampled(server: RunningServer, *, every_s: float = 1.0) -> Iterator[Memory]:
    memory, is_over = Memory(), threading.Event()

    def sample() -> None:
        while not is_over.wait(every_s):
            memory.samples.append((time.perf_counter(), server.rss_bytes / 1e6))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield memory
    finally:
        is_over.set()
        thread.join()


def _retry_after_s(answer: Answer) -> float:
    return 0.0 if answer.retry_after_s is None else answer.retry_after_s


def _per_second(answers: Sequence[Answer], started_s: float, seconds: float) -> list[int]:
    """Answers that were complete in each ten seconds."""
    counts = [0] * max(1, int(seconds // 10))
    for answer in answers:
        counts[min(len(counts) - 1, int((answer.done_s - started_s) // 10))] += 1
    return counts


if __name__ == "__main__":
    main()
