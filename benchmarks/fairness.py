"""Fairness: one tenant sends ten times what the server can answer. How long does another one wait for a first word?

    python -m benchmarks.fairness                 # about four minutes on two cores
    python -m benchmarks.fairness --seconds 15 --out /tmp/overload.json

The other tenant sends one request a second, first to the idle server, then beside the flood. The server is the one that
`hearth serve` runs, but takes the tenant from a header. Its queue is as it is by default, so the flood may fill it.

Writes the section `fairness` of benchmarks/results/overload.json.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks.bars import held_to
from benchmarks.load import Answer, ask, open_loop, run_traffic
from benchmarks.overload import body_of, capacity_of, model
from benchmarks.prompts import Prompts
from benchmarks.results import OVERLOAD, Section, environment, save_section
from benchmarks.servers import free_port, started, write_config
from benchmarks.tenant_server import TENANT_HEADER
from server.loadgen.figures import distinct_errors, percentiles
from server.loadgen.loops import poisson_arrivals
from server.loadgen.prompts import new_seed

SECONDS = 60.0
CAPACITY_S = 30.0
TIMES_CAPACITY = 10
HEAD_START_S = 5.0
"""In which the flood takes all places and fills the queue."""

MAX_RATIO = 3.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each of the two rounds")
    parser.add_argument("--out", type=Path, default=OVERLOAD)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config, port = Path(folder) / "models.yaml", free_port()
        write_config(config, [model()], data_dir=Path(folder) / "data")
        module = ["-m", "benchmarks.tenant_server", str(config), str(port)]
        with started([sys.executable, *module], port) as server:
            section = {"environment": environment(), **measure(server.port, arguments.seconds)}
    print({name: value for name, value in section.items() if name != "environment"})
    save_section(section, "fairness", path=arguments.out)


def measure(port: int, seconds: float) -> Section:
    prompts = Prompts(new_seed())
    capacity = capacity_of(port, prompts, min(seconds, CAPACITY_S))
    idle = run_traffic(one_a_second(port, prompts, seconds)).answers
    beside, flood = asyncio.run(beside_a_flood(port, prompts, seconds, rate=TIMES_CAPACITY * capacity))
    figures = {"idle": _figures(idle), "beside_a_flood": _figures(beside)}
    ratio = figures["beside_a_flood"].get("ttft_p95_s", 0.0) / figures["idle"]["ttft_p95_s"]
    return {
        "seconds": seconds,
        "capacity_per_s": round(capacity, 3),
        **figures,
        "flood": {
            "statuses": {str(status): count for status, count in Counter(each.status for each in flood).items()},
            **percentiles("ttft", [each.ttft_s for each in flood if each.chunk_s], 50, 95),
        },
        "errors": list(distinct_errors(answer.error for answer in beside)),
        "bars": {
            "ttft_p95_ratio": held_to(ratio, most=MAX_RATIO),
            "answered_share": held_to(sum(not each.error for each in beside) / len(beside), least=1),
        },
    }


async def one_a_second(port: int, prompts: Prompts, seconds: float, *, after_s: float = 0.0) -> list[Answer]:
    arrivals_s = [after_s + second for second in range(max(1, int(seconds)))]
    bodies = [body_of(prompts) for _ in arrivals_s]
    return await open_loop(port, bodies, arrivals_s, headers={TENANT_HEADER: "modest"})


async def beside_a_flood(
    port: int, prompts: Prompts, seconds: float, *, rate: float
) -> tuple[list[Answer], list[Answer]]:
    """Return what the modest tenant and the flooding one experience; the flood is cut off when the former is done."""
    total_s = seconds + HEAD_START_S
    arrivals_s = [at_s for at_s in poisson_arrivals(int(2 * rate * total_s), rate, seed=prompts.seed) if at_s < total_s]
    answers = [Answer(body_of(prompts), 0.0) for _ in arrivals_s]
    flooding = asyncio.create_task(_flood(port, answers, arrivals_s))
    beside = await one_a_second(port, prompts, seconds, after_s=HEAD_START_S)
    flooding.cancel()
    await asyncio.wait((flooding,))
    return beside, [answer for answer in answers if answer.sent_s]


async def _flood(port: int, answers: list[Answer], arrivals_s: list[float]) -> None:
    begun_s = time.perf_counter()

    async def send(answer: Answer, arrival_s: float) -> None:
        answer.due_s = begun_s + arrival_s
        await asyncio.sleep(answer.due_s - time.perf_counter())
        await ask(port, answer, headers={TENANT_HEADER: "flood"})

    await asyncio.gather(*(send(*each) for each in zip(answers, arrivals_s, strict=True)))


def _figures(answers: list[Answer]) -> dict[str, float]:
    return percentiles("ttft", [each.ttft_s for each in answers if not each.error], 50, 95, 100)


if __name__ == "__main__":
    main()
