"""Ten thousand hostile requests: is every one refused, does nobody else notice, and is nothing left of them?

    python -m benchmarks.hostile                  # some minutes on two cores
    python -m benchmarks.hostile --requests 300 --out /tmp/hostile.json

Starts `hearth serve` with the default models and sends what `hostile_rows.py` makes of a seed, some at a time,
while two neighbours stream the same answers over and over. It must hold that

- every request gets a status that is right for it, errors in its API's shape and without a path or a stack in them;
- every stream of the neighbours is, letter for letter, what it was before;
- server and workers are the processes that they were, and `/health` answers within a second;
- after a warm-up no process grows by more than 1 MiB per 100 requests.

Writes benchmarks/results/hostile.json, and ends with 1 if one of these does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import yaml

from benchmarks.hostile_requests import CHAT, COMPLETIONS, CONTEXT, MESSAGES, Hostile
from benchmarks.hostile_rows import hostile_requests
from benchmarks.results import HOSTILE, Section, environment
from benchmarks.server_process import ServerProcess
from benchmarks.servers import ROOT, default_models

NUM_ATTACKERS = 4
WARM_UP = 0.2
"""Share of the requests after which memory counts: by then everything has been loaded and every cache filled."""

PREFIX_MEMORY_MB = 64

MAX_GROWTH_MIB = 1.0
"""Per 100 requests."""

MAX_HEALTH_S = 1.0
SAMPLE_S = 0.5
MAX_SHOWN = 20
"""Of the surprises that the results show."""

NEIGHBOURS = (
    "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,",
    "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday, Monday, Tuesday,",
)
"""What a small model goes on with in the one way there is. Other texts hang on the last digits of a logit, and these on
who else is in the batch."""

OPENAI_ERROR = {"message", "type", "param", "code"}
ANTHROPIC_ERROR = {"message", "type", "details"}

LEAKS = ("Traceback", 'File "', "/root", "/home", "/tmp", "site-packages", "server/")


@dataclass
class Findings:
    """What a run has seen.

    Attributes:
        statuses: How many answers of each status, by row.
        surprises: Requests that were answered in a way that is not right for them.
        num_streams: Of the neighbours, whole and unchanged.
        broken_streams: The texts of the others.
        health_s: What `/health` took, each time.
        memory_mib: Of each process, each time, by what it is.
    """

    statuses: dict[str, Counter[int]] = field(default_factory=dict)
    surprises: list[str] = field(default_factory=list)
    num_streams: int = 0
    broken_streams: list[str] = field(default_factory=list)
    health_s: list[float] = field(default_factory=list)
    memory_mib: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    are_processes_unchanged: bool = False
    num_done: int = 0
    seconds: float = 0.0

    def growth_mib_per_100(self) -> dict[str, float]:
        """Of each process, after the warm-up: the median of the last samples less that of the first."""
        first_counted = int(WARM_UP * self.num_done)
        growth = {}
        for name, samples in self.memory_mib.items():
            counted = [(at, mib) for at, mib in samples if at >= first_counted]
            if len(counted) >= 2:
                few = max(1, len(counted) // 5)
                first, last = counted[:few], counted[-few:]
                num_between = statistics.mean(at for at, _ in last) - statistics.mean(at for at, _ in first)
                gained = statistics.median(mib for _, mib in last) - statistics.median(mib for _, mib in first)
                growth[name] = round(100 * gained / max(1.0, num_between), 3)
        return growth

    def faults(self) -> list[str]:
        """What does not hold of what must."""
        grown = {name: mib for name, mib in self.growth_mib_per_100().items() if mib > MAX_GROWTH_MIB}
        return [
            *(f"{len(self.surprises)} requests were answered wrongly" for _ in self.surprises[:1]),
            *(f"{len(self.broken_streams)} streams of neighbours were changed" for _ in self.broken_streams[:1]),
            *(["no stream of a neighbour came to its end"] if not self.num_streams else []),
            *([] if self.are_processes_unchanged else ["a process has been replaced"]),
            *([f"/health took {max(self.health_s):.2f} s"] if max(self.health_s) > MAX_HEALTH_S else []),
            *(f"{name} grows by {mib} MiB per 100 requests" for name, mib in grown.items()),
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=6)
    parser.add_argument("--out", type=Path, default=HOSTILE)
    arguments = parser.parse_args()
    started = environment()
    with (
        tempfile.TemporaryDirectory() as folder,
        ServerProcess(write_config(Path(folder)), Path(folder) / "log") as server,
    ):
        server.wait_until_settled()
        findings = asyncio.run(attack(server, seed=arguments.seed, count=arguments.requests))
    section = {**started, "seed": arguments.seed, **summarise(findings)}
    arguments.out.write_text(json.dumps(section, indent=1) + "\n", encoding="utf-8")
    for fault in findings.faults():
        print(f"FAULT: {fault}")
    print(f"written to {arguments.out}")
    sys.exit(bool(findings.faults()))


def write_config(folder: Path, *, context: int = CONTEXT) -> Path:
    """The default models, not tuned; the chat model with so short a context, and so little memory for prefixes, that
    both are soon full: what goes on growing then is a leak."""
    small = {"context": context, "prefix_memory_mb": PREFIX_MEMORY_MB}
    models = [{**model, **small} if model["kind"] == "chat" else model for model in default_models()]
    server = {"weights_dir": str(ROOT / "weights"), "data_dir": str(folder / "data"), "tune": False}
    config = folder / "models.yaml"
    config.write_text(yaml.safe_dump({"server": server, "models": models}), encoding="utf-8")
    return config


def summarise(findings: Findings) -> Section:
    return {
        "requests": findings.num_done,
        "seconds": round(findings.seconds, 1),
        "answers": {row: dict(sorted(counts.items())) for row, counts in sorted(findings.statuses.items())},
        "surprises": {"count": len(findings.surprises), "first": findings.surprises[:MAX_SHOWN]},
        "neighbours": {"streams": findings.num_streams, "changed": findings.broken_streams[:MAX_SHOWN]},
        "processes_unchanged": findings.are_processes_unchanged,
        "health_s": {"median": round(statistics.median(findings.health_s), 4), "max": round(max(findings.health_s), 4)},
        "growth_mib_per_100_requests": findings.growth_mib_per_100(),
        "memory_mib": {name: _first_and_last(samples) for name, samples in findings.memory_mib.items()},
        "faults": findings.faults(),
    }


def _first_and_last(samples: list[tuple[int, float]]) -> list[float]:
    return [round(samples[0][1], 1), round(samples[-1][1], 1)]


async def attack(server: ServerProcess, *, seed: int, count: int) -> Findings:
    """Send `count` requests to a server whose models are ready, and watch everybody else meanwhile."""
    findings = Findings()
    before = (server.process.pid, server.worker_pids())
    started_s = time.perf_counter()
    requests = hostile_requests(seed, count)
    async with httpx.AsyncClient(base_url=server.url, timeout=600) as client:
        undisturbed = [await _stream(client, prompt) for prompt in NEIGHBOURS]
        is_over = asyncio.Event()
        others = [
            asyncio.create_task(_keep_streaming(client, prompt, text, findings, is_over))
            for prompt, text in zip(NEIGHBOURS, undisturbed, strict=True)
        ]
        others.append(asyncio.create_task(_watch(client, server, findings, is_over)))
        await asyncio.gather(*(_send_all(client, requests, findings) for _ in range(NUM_ATTACKERS)))
        is_over.set()
        await asyncio.gather(*others)
    findings.seconds = time.perf_counter() - started_s
    findings.are_processes_unchanged = (server.process.pid, server.worker_pids()) == before
    return findings


# ---- those who attack


async def _send_all(client: httpx.AsyncClient, requests: Iterator[Hostile], findings: Findings) -> None:
    """Send what is left of the requests, one after the other."""
    for hostile in requests:
        status, text = await send_hostile(client, hostile)
        findings.statuses.setdefault(hostile.row, Counter())[status] += 1
        findings.num_done += 1
        if wrong := what_is_wrong(hostile, status, text):
            findings.surprises.append(f"{hostile.row} {hostile.path} {hostile.content[:300]!r}: {wrong}")


async def send_hostile(client: httpx.AsyncClient, hostile: Hostile) -> tuple[int, str]:
    """Status and body; 0 where no answer came."""
    if hostile.is_raw:
        return await _send_raw(client, hostile)
    try:
        response = await client.post(hostile.path, content=hostile.content, headers=hostile.headers)
    except httpx.TransportError as exc:
        if 413 in hostile.statuses:
            return 413, ""  # refused while it was still being sent, and the connection closed
        return 0, repr(exc)
    return response.status_code, response.text


async def _send_raw(client: httpx.AsyncClient, hostile: Hostile) -> tuple[int, str]:
    address = urlsplit(str(client.base_url))
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(hostile.content)
    try:
        answer = (await asyncio.wait_for(reader.read(), 60)).decode("utf-8", "replace")
    except (OSError, TimeoutError) as exc:
        return 0, repr(exc)
    finally:
        writer.close()
    head, _, body = answer.partition("\r\n\r\n")
    return int(head.split(" ")[1]) if head else 0, body


def what_is_wrong(hostile: Hostile, status: int, text: str) -> str:
    """With an answer; empty if nothing is."""
    if status not in hostile.statuses:
        return f"status {status}: {text[:500]}"
    if status == 200 or hostile.is_raw or not text:
        return ""
    try:
        error = json.loads(text)["error"]
        if set(error) != (ANTHROPIC_ERROR if hostile.path == MESSAGES else OPENAI_ERROR):
            return f"its error has the fields {sorted(error)}"
    except (ValueError, KeyError, TypeError):
        return f"its error is of another shape: {text[:500]}"
    sent = hostile.content.decode("utf-8", "replace")
    leaks = [leak for leak in LEAKS if leak in error["message"] and leak not in sent]
    return f"its error shows {leaks}: {error['message'][:500]}" if leaks else ""


# ---- those who must not notice


async def _stream(client: httpx.AsyncClient, prompt: str) -> str:
    """The text of a stream; whatever else came if it was not whole."""
    body = {"model": CHAT, "prompt": prompt, "stream": True, "temperature": 0, "max_tokens": 48}
    response = await client.post(COMPLETIONS, json=body)
    lines = [line[6:] for line in response.text.splitlines() if line.startswith("data: ")]
    if response.status_code != 200 or lines[-1:] != ["[DONE]"]:
        return f"BROKEN {response.status_code}: {response.text[-500:]}"
    return "".join(choice["text"] for line in lines[:-1] for choice in json.loads(line)["choices"])


async def _keep_streaming(
    client: httpx.AsyncClient, prompt: str, undisturbed: str, findings: Findings, is_over: asyncio.Event
) -> None:
    """Stream once, and again until it is over."""
    while not is_over.is_set():
        text = await _stream(client, prompt)
        if text == undisturbed:
            findings.num_streams += 1
        else:
            findings.broken_streams.append(text)


async def _watch(client: httpx.AsyncClient, server: ServerProcess, findings: Findings, is_over: asyncio.Event) -> None:
    """Ask for health, and look at the memory of every process."""
    processes = {name: psutil.Process(pid) for name, pid in server.worker_pids().items()}
    processes["server"] = psutil.Process(server.process.pid)
    while not is_over.is_set():
        started_s = time.perf_counter()
        (await client.get("/health")).raise_for_status()
        findings.health_s.append(time.perf_counter() - started_s)
        for name, process in processes.items():
            mib = _memory_mib(process, with_children=name != "server")
            findings.memory_mib.setdefault(name, []).append((findings.num_done, mib))
        await asyncio.sleep(SAMPLE_S)


def _memory_mib(process: psutil.Process, *, with_children: bool) -> float:
    """Of a process; of a worker together with those that try out its grammars and render its templates."""
    family = [process, *(process.children() if with_children else ())]
    num_bytes = 0
    for each in family:
        with contextlib.suppress(psutil.NoSuchProcess):  # killed, as some grammars will have it
            num_bytes += each.memory_info().rss
    return float(num_bytes / 2**20)


if __name__ == "__main__":
    main()
