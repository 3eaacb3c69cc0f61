"""Faults: `kill -9` of each worker under traffic. How soon do clients hear of it, how soon does the model serve again?

    python -m benchmarks.faults                   # about two minutes on two cores

Starts `hearth serve` with the default models. Each repetition kills each worker once, in turn, while four requests run
in it and the other models answer requests of their own. Measured from the kill:

- time to error: until the last of the four requests has ended with its error (the chats are streams, the others not);
- time to serve again: until a new request, sent right after the errors, has its answer. Clients need not try again:
  the server holds that request while the model loads.

Writes benchmarks/results/faults.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import yaml

from benchmarks.machine import describe_machine, describe_versions, now, spread
from benchmarks.server_process import ServerProcess
from server.workers.keeper import SupervisionPolicy

ROOT = Path(__file__).resolve().parents[1]
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
    idle_cpu_s = _cpu_s(worker)
    bystanders: list[int] = []
    async with httpx.AsyncClient(base_url=server.url, timeout=120) as client:
        asking = [
            asyncio.create_task(keep_asking(client, other, bystanders)) for other in TRAFFIC if other is not target
        ]
        running = [asyncio.create_task(_ask(client, target, target.long)) for _ in range(num_running)]
        while _cpu_s(worker) < idle_cpu_s + BUSY_CPU_S:  # noqa: ASYNC110 (no event tells of it)
            await asyncio.sleep(0.005)
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


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "faults.json")
    arguments = parser.parse_args()
    machine = describe_machine()
    with tempfile.TemporaryDirectory() as folder, ServerProcess(_write_config(folder), Path(folder) / "log") as server:
        server.wait_until_settled()
        faults = asyncio.run(_measure(server, arguments.repetitions))
    report = {
        "made_at": now(),
        "machine": machine,
        "versions": describe_versions(),
        "repetitions": arguments.repetitions,
        "requests_running_in_the_worker": NUM_RUNNING,
        "models": {model: _summarise(of_model) for model, of_model in faults.items()},
    }
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")
    print(f"written to {arguments.out}")


def _write_config(folder: str) -> Path:
    """The default models as they stand in models.yaml, with their weights where `hearth pull` put them."""
    document = yaml.safe_load((ROOT / "models.yaml").read_text(encoding="utf-8"))
    config = Path(folder) / "models.yaml"
    server = {"weights_dir": str(ROOT / "weights")}
    config.write_text(yaml.safe_dump({"server": server, "models": document["models"]}), encoding="utf-8")
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
