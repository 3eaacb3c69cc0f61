"""Faults: what becomes of requests, models and the server when something dies, hangs, is broken or is told to stop?

    python -m benchmarks.faults                   # about five minutes on two cores
    python -m benchmarks.faults --only 7 --repetitions 0
    python -m benchmarks.faults --table           # what has been measured, into docs/performance.md

First every row of `ROWS`, each on a server of its own. Then `kill -9` of each worker under traffic, with the
default models: each repetition kills each worker once, in turn, while four requests run in it and the other models
answer requests of their own. Measured from the kill:

- time to error: until the last of the four requests has ended with its error (the chats are streams, the others not);
- time to serve again: until a new request, sent right after the errors, has its answer. Clients need not try again:
  the server holds that request while the model loads.

Writes benchmarks/results/faults.json, and ends with 1 if something that must hold did not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from benchmarks import fault_models, fault_server, fault_workers
from benchmarks.fault_rig import Row, until_busy
from benchmarks.machine import describe_machine, describe_versions, now, spread
from benchmarks.results import FAULTS, load_results
from benchmarks.server_process import ServerProcess
from benchmarks.servers import ROOT, default_models
from benchmarks.tables import NOT_YET, PAGE, markdown, refill, significant
from server.workers.supervision_policy import SupervisionPolicy

NUM_RUNNING = 4
BUSY_CPU_S = 1.0
"""CPU time after which a worker is in the middle of its requests, whose prompts take a fraction of it."""

NO_ANSWER = 0
"""In place of a status, where the connection broke."""

BYSTANDER_PAUSE_S = 0.1
"""Between the requests to another model: it shall be in use, not take the cores from the model that loads again."""

_PARAGRAPH = "The quick brown fox jumps over the lazy dog near the river bank. " * 10


Body = dict[str, object]


@dataclass(frozen=True)
class Traffic:
    """Requests to one model.

    Attributes:
        long: Makes a body that keeps the worker busy for seconds.
        short: Makes a body that is answered at once.

    Both put a word into the texts that no other request has: what was computed before, or is being computed for another
    request, would be answered without any work.
    """

    model: str
    path: str
    long: Callable[[str], Body]
    short: Callable[[str], Body]


def _say(text: str, **more: object) -> Body:
    return {"messages": [{"role": "user", "content": text}], **more}


def _paragraphs(word: str) -> list[str]:
    return [f"{word} {number} {_PARAGRAPH}" for number in range(200)]


TRAFFIC = (
    Traffic(
        "smollm2-135m-instruct",
        "/v1/chat/completions",
        lambda word: _say(f"Tell a long story about {word}.", stream=True, max_tokens=4000, ignore_eos=True),
        lambda word: _say(f"Say {word}.", max_tokens=1),
    ),
    Traffic(
        "all-minilm-l6-v2",
        "/v1/embeddings",
        lambda word: {"input": _paragraphs(word)},
        lambda word: {"input": f"hello {word}"},
    ),
    Traffic(
        "ms-marco-minilm-l12-v2",
        "/v1/rerank",
        lambda word: {"query": "Which animal jumps?", "documents": _paragraphs(word)},
        lambda word: {"query": "cat", "documents": [f"kitten {word}", f"car {word}"]},
    ),
)


@dataclass(frozen=True)
class Ending:
    """How one request ended that ran in the killed worker."""

    status: int
    headers: httpx.Headers
    text: str
    after_kill_s: float


@dataclass(frozen=True)
class Fault:
    """What a kill did.

    Attributes:
        endings: Of the requests that ran in the worker.
        serve_again_s: From the kill until a new request was answered.
        bystanders: Status of each request to other models meanwhile; `NO_ANSWER` where there is none.
    """

    endings: tuple[Ending, ...]
    serve_again_s: float
    bystanders: tuple[int, ...]

    @property
    def error_s(self) -> float:
        return max(ending.after_kill_s for ending in self.endings)


async def kill_worker(server: ServerProcess, target: Traffic, *, num_running: int = NUM_RUNNING) -> Fault:
    """Kill the worker of `target` while requests run in it, and wait until the model has answered again."""
    worker = psutil.Process(server.worker_pids()[target.model])
    bystanders: list[int] = []
    async with httpx.AsyncClient(base_url=server.url, timeout=120) as client:
        asking = [
            asyncio.create_task(keep_asking(client, other, bystanders)) for other in TRAFFIC if other is not target
        ]
        running = [asyncio.create_task(_ask(client, target, target.long)) for _ in range(num_running)]
        await until_busy(worker, BUSY_CPU_S)
        killed_at = time.perf_counter()
        os.kill(worker.pid, signal.SIGKILL)
        ended = await asyncio.gather(*running)
        response, answered_at = await _ask(client, target, target.short)
        response.raise_for_status()
        for task in asking:
            task.cancel()
        await asyncio.wait(asking)
        for task in asking:
            if not task.cancelled():
                task.result()  # raises what ended it
    return Fault(
        tuple(Ending(one.status_code, one.headers, one.text, ended_at - killed_at) for one, ended_at in ended),
        answered_at - killed_at,
        tuple(bystanders),
    )


async def _ask(
    client: httpx.AsyncClient, traffic: Traffic, make_body: Callable[[str], Body]
) -> tuple[httpx.Response, float]:
    """The answer, and when its last byte had come."""
    response = await client.post(traffic.path, json={"model": traffic.model, **make_body(secrets.token_hex(4))})
    return response, time.perf_counter()


async def keep_asking(client: httpx.AsyncClient, traffic: Traffic, statuses: list[int]) -> None:
    """Ask until cancelled; note the status of each answer, and `NO_ANSWER` where none came."""
    while True:
        try:
            response, _ = await _ask(client, traffic, traffic.short)
            statuses.append(response.status_code)
        except httpx.HTTPError:
            statuses.append(NO_ANSWER)
        await asyncio.sleep(BYSTANDER_PAUSE_S)


ROWS: tuple[tuple[str, Callable[[Path], Awaitable[Row | list[Row]]]], ...] = (
    ("1", fault_workers.queued_requests_wait),
    ("2", fault_workers.abort_in_a_loop),
    ("3", fault_models.truncated_while_mapped),
    ("4", fault_models.no_memory_to_load),
    ("5", fault_workers.victim_of_the_oom_killer),
    ("6", fault_models.broken_weights_at_start),
    ("7", fault_workers.stopped_worker),
    ("7", fault_workers.long_prefill),
    ("8", fault_models.slow_load),
    ("9", fault_server.killed_server),
    ("16", fault_server.terminated_with_streams),
    ("16", partial(fault_server.terminated_for_good, drain_s=5.0, signals=1)),
    ("16", partial(fault_server.terminated_for_good, drain_s=30.0, signals=2)),
    ("28", fault_server.refused_starts),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5, help="of the kills under traffic")
    parser.add_argument("--only", action="append", help="number of a row; may be repeated")
    parser.add_argument("--table", action="store_true", help="write the table, measure nothing")
    parser.add_argument("--out", type=Path, default=FAULTS)
    arguments = parser.parse_args()
    if not arguments.table:
        before = load_results(arguments.out)
        report = {**before, **_measure_all(arguments.only, arguments.repetitions)}
        if arguments.only:
            kept = [row for row in before.get("rows", ()) if row["number"] not in arguments.only]
            report["rows"] = sorted(kept + report["rows"], key=lambda row: int(row["number"]))
        arguments.out.write_text(json.dumps(report, indent=2) + "\n")
        print(f"written to {arguments.out}")
    results = load_results(arguments.out)
    if arguments.out == FAULTS:
        PAGE.write_text(refill(PAGE.read_text(encoding="utf-8"), {"faults": lambda: table(results)}), encoding="utf-8")
    sys.exit(any(row["broken"] or row["late"] for row in results.get("rows", ())))


def _measure_all(only: Sequence[str] | None, repetitions: int) -> dict[str, Any]:
    report: dict[str, Any] = {"made_at": now(), "machine": describe_machine(), "versions": describe_versions()}
    rows = [row for number, inject in ROWS if only is None or number in only for row in _inject(inject)]
    if rows:
        report["rows"] = [asdict(row) for row in rows]
    if repetitions:
        with (
            tempfile.TemporaryDirectory() as folder,
            ServerProcess(_write_config(folder), Path(folder) / "log") as server,
        ):
            server.wait_until_settled()
            faults = asyncio.run(_measure(server, repetitions))
        report["repetitions"] = repetitions
        report["requests_running_in_the_worker"] = NUM_RUNNING
        report["models"] = {model: _summarise(of_model) for model, of_model in faults.items()}
    return report


def _inject(inject: Callable[[Path], Awaitable[Row | list[Row]]]) -> list[Row]:
    async def run(folder: Path) -> list[Row]:
        rows = await inject(folder)
        return rows if isinstance(rows, list) else [rows]

    with tempfile.TemporaryDirectory() as folder:
        rows = asyncio.run(run(Path(folder)))
    for row in rows:
        print(
            f"{row.number:>3} {row.fault}: {row.outcome} {row.figures}",
            *(f"BROKEN: {each}" for each in row.broken + row.late),
        )
    return rows


def table(results: dict[str, Any]) -> str:
    """The rows, as they stand in docs/performance.md."""

    def cells(row: dict[str, Any]) -> tuple[str, ...]:
        figures = ", ".join(f"{name} {significant(value)}" for name, value in row["figures"].items())
        failings = [*row["broken"], *row["late"]]
        held = f"**no**: {'; '.join(failings)}" if failings else "yes"
        return row["number"], row["fault"], row["outcome"], figures, held

    head = ("Row", "Fault", "What happens", "Figures", "Holds")
    rows = [cells(row) for row in results.get("rows", ())]
    return markdown(head, rows) if rows else NOT_YET


def _write_config(folder: str) -> Path:
    """The default models as they stand in models.yaml, with their weights where `hearth pull` put them."""
    config = Path(folder) / "models.yaml"
    server = {"weights_dir": str(ROOT / "weights")}
    config.write_text(yaml.safe_dump({"server": server, "models": default_models()}), encoding="utf-8")
    return config


async def _measure(server: ServerProcess, repetitions: int) -> dict[str, list[Fault]]:
    # A model that crashes often within a window is given up; stay just below that rate.
    policy = SupervisionPolicy()
    round_s = policy.crash_window_s / (policy.max_crashes - 1) + 1
    faults: dict[str, list[Fault]] = {traffic.model: [] for traffic in TRAFFIC}
    for repetition in range(repetitions):
        next_round = asyncio.create_task(asyncio.sleep(round_s))
        for traffic in TRAFFIC:
            fault = await kill_worker(server, traffic)
            faults[traffic.model].append(fault)
            print(f"{traffic.model}: error after {fault.error_s:.3f} s, serves again after {fault.serve_again_s:.2f} s")
        if repetition < repetitions - 1:
            await next_round
        next_round.cancel()
    return faults


def _summarise(faults: Sequence[Fault]) -> dict[str, object]:
    statuses = [status for fault in faults for status in fault.bystanders]
    return {
        "time_to_error_s": spread([fault.error_s for fault in faults]),
        "time_to_serve_again_s": spread([fault.serve_again_s for fault in faults]),
        "requests_to_other_models": {"answered": statuses.count(200), "failed": len(statuses) - statuses.count(200)},
    }


if __name__ == "__main__":
    main()
