"""Models come and go under traffic: is a request lost that could have been served, does memory come back?

    python -m benchmarks.lifecycle                # about five minutes on two cores
    python -m benchmarks.lifecycle --seconds 10 --out /tmp/lifecycle.json

Starts `hearth serve` with the default models, all loaded on demand, and three clients for each of them that ask, read
the answer, pause for a moment, and ask again. Nothing else limits them: requests wait while a model loads.

- `cycles`: without traffic, each model is loaded and unloaded several times; after each unload the memory of the
  server and all its children is measured.
- `unload`: under traffic, the models are unloaded in turn, every few seconds; each comes back with the next request.
- `evict`: the same traffic with a budget that two of the three models fit into; nobody unloads anything.
- `reload`: models.yaml changes every few seconds (the context of the chat model, and a description) and is reloaded.

A request that gets anything but its answer is counted as failed. Memory is proportional set size, summed over the
server and its children. Writes benchmarks/results/lifecycle.json, and ends with 1 if a request failed or memory stayed.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

from benchmarks.machine import spread
from benchmarks.results import LIFECYCLE, Section, environment, save_section
from benchmarks.server_process import ServerProcess
from benchmarks.servers import ROOT, default_models
from server.loadgen.figures import percentiles
from server.workers.process_memory import measure_memory

NUM_CYCLES = 3
NUM_CLIENTS = 3
EVERY_S = 4.0
"""Between two unloads, or two reloads."""

MAX_LEFT_MIB = 16.0
"""Memory that may be left after unloading everything, over what a server without models had."""

CONTEXTS = (4096, 8192)
_TEXT = "A model that nobody asks gives its memory to one that somebody does. " * 4


def bodies(models: Sequence[dict[str, Any]]) -> dict[str, tuple[str, Callable[[int], dict[str, object]]]]:
    """For each model the path to ask on, and a body for each request; no cache answers for a model."""

    def chat(model_id: str) -> Callable[[int], dict[str, object]]:
        return lambda n: {
            "model": model_id,
            "messages": [{"role": "user", "content": f"{n}. Say something about memory."}],
            "max_tokens": 24,
        }

    def embedding(model_id: str) -> Callable[[int], dict[str, object]]:
        return lambda n: {"model": model_id, "input": [f"{n} {index} {_TEXT}" for index in range(8)]}

    def rerank(model_id: str) -> Callable[[int], dict[str, object]]:
        return lambda n: {"model": model_id, "query": f"memory {n}", "documents": [_TEXT[i:] for i in range(8)]}

    makers = {"chat": chat, "embedding": embedding, "rerank": rerank}
    paths = {"chat": "/v1/chat/completions", "embedding": "/v1/embeddings", "rerank": "/v1/rerank"}
    return {model["id"]: (paths[model["kind"]], makers[model["kind"]](model["id"])) for model in models}


@dataclass
class Traffic:
    """What the clients of all models saw.

    Attributes:
        latencies_s: Of answered requests, by model.
        failures: What requests got in place of an answer, and how often.
    """

    latencies_s: dict[str, list[float]] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)

    def summary(self) -> Section:
        return {
            "num_answered": sum(map(len, self.latencies_s.values())),
            "failed": dict(self.failures),
            "models": {name: percentiles("latency", found, 50, 95, 100) for name, found in self.latencies_s.items()},
        }


@asynccontextmanager
async def under_traffic(
    server: ServerProcess, models: Sequence[dict[str, Any]], *, pause_s: float
) -> AsyncIterator[Traffic]:
    """Ask all models until the block is left, and then wait for the last answers."""
    traffic, is_over, asked = Traffic(), asyncio.Event(), bodies(models)
    rng = random.Random(7)
    numbers = itertools.count()

    async def ask_for_ever(http: httpx.AsyncClient, name: str) -> None:
        path, body = asked[name]
        while not is_over.is_set():
            began_at = time.monotonic()
            try:
                response = await http.post(path, json=body(next(numbers)))
            except httpx.HTTPError as exc:
                traffic.failures[f"{name}: {exc!r}"] += 1
                continue
            if response.status_code == 200:
                traffic.latencies_s.setdefault(name, []).append(time.monotonic() - began_at)
            else:
                traffic.failures[f"{name}: {response.status_code} {response.text[:300]}"] += 1
            await asyncio.sleep(rng.uniform(0, 2 * pause_s))

    async with httpx.AsyncClient(base_url=server.url, timeout=120) as http:
        clients = [asyncio.create_task(ask_for_ever(http, name)) for name in asked for _ in range(NUM_CLIENTS)]
        yield traffic
        is_over.set()
        await asyncio.gather(*clients)


@dataclass(frozen=True)
class Lab:
    """Where servers are started: a folder of its own, and the default models, loaded on demand."""

    folder: Path
    models: tuple[dict[str, Any], ...]

    def configure(self, *, budget_mb: int | None = None, context: int | None = None) -> Path:
        server = {"weights_dir": str(ROOT / "weights"), "data_dir": str(self.folder / "data"), "tune": False}
        if budget_mb:
            server["memory_budget_mb"] = budget_mb
        models = [
            {**model, "lazy": True, "description": f"with a context of {context}"}
            | ({"context": context} if context and model["kind"] == "chat" else {})
            for model in self.models
        ]
        path = self.folder / "models.yaml"
        path.write_text(yaml.safe_dump({"server": server, "models": models}), encoding="utf-8")
        return path

    def serve(self, *, budget_mb: int | None = None) -> ServerProcess:
        return ServerProcess(self.configure(budget_mb=budget_mb), self.folder / "log")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=40, help="of traffic in each part")
    parser.add_argument("--out", type=Path, default=LIFECYCLE)
    arguments = parser.parse_args()
    about = {"environment": environment(), "num_clients_per_model": NUM_CLIENTS, "seconds": arguments.seconds}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"  # footprints of this run alone
        parts = asyncio.run(measure(Lab(Path(folder), tuple(default_models())), arguments.seconds))
    for name, section in parts.items():
        save_section({**about, **section}, name, path=arguments.out)
    faults = faults_of(parts)
    for fault in faults:
        print(f"FAULT: {fault}")
    print(f"written to {arguments.out}")
    sys.exit(bool(faults))


async def measure(lab: Lab, seconds: float) -> Section:
    with lab.serve() as server:
        cycles = await load_and_unload(server, lab)
        print("cycles:", cycles)
        unload = await unload_under_traffic(server, lab, seconds, baseline_mib=cycles["baseline_mib"])
        print("unload:", unload)
        reload = await reload_under_traffic(server, lab, seconds)
        print("reload:", reload)
    sizes = [model["memory_mib"]["max"] for model in cycles["models"].values()]
    budget_mb = int(sum(sizes) - min(sizes) / 2)
    with lab.serve(budget_mb=budget_mb) as server:
        evict = await evict_under_traffic(server, lab, seconds, budget_mb=budget_mb)
        print("evict:", evict)
    return {"cycles": cycles, "unload": unload, "evict": evict, "reload": reload}


async def load_and_unload(server: ServerProcess, lab: Lab) -> Section:
    """Memory and times of each model, and what is left when it is gone."""
    asked = bodies(lab.models)
    baseline_mib = memory_mib(server)
    found: dict[str, Section] = {}
    left_mib: list[float] = []
    async with httpx.AsyncClient(base_url=server.url, timeout=120) as http:
        for name, (path, body) in asked.items():
            loads, unloads, sizes = [], [], []
            for number in range(NUM_CYCLES):
                loads.append(await settle(http, name, "load"))
                (await http.post(path, json=body(number))).raise_for_status()
                sizes.append(memory_mib(server) - baseline_mib)
                unloads.append(await settle(http, name, "unload"))
                left_mib.append(memory_mib(server) - baseline_mib)
            found[name] = {"load_s": spread(loads), "unload_s": spread(unloads), "memory_mib": spread(sizes, digits=1)}
    return {
        "baseline_mib": round(baseline_mib, 1),
        "models": found,
        "left_after_unload_mib": spread(left_mib, digits=1),
    }


async def unload_under_traffic(server: ServerProcess, lab: Lab, seconds: float, *, baseline_mib: float) -> Section:
    names = itertools.cycle(model["id"] for model in lab.models)
    took: list[float] = []

    async def unload(http: httpx.AsyncClient) -> None:
        began_at = time.monotonic()
        (await http.post(f"/v1/models/{next(names)}/unload")).raise_for_status()
        took.append(time.monotonic() - began_at)

    async with under_traffic(server, lab.models, pause_s=0.1) as traffic:
        await every(seconds, unload, server)
    async with httpx.AsyncClient(base_url=server.url, timeout=120) as http:
        for model in lab.models:
            await settle(http, model["id"], "unload")
    return {"num_unloads": len(took), **traffic.summary(), "left_mib": round(memory_mib(server) - baseline_mib, 1)}


async def reload_under_traffic(server: ServerProcess, lab: Lab, seconds: float) -> Section:
    contexts = itertools.cycle(CONTEXTS)
    took: list[float] = []
    replaced: Counter[str] = Counter()

    async def reload(http: httpx.AsyncClient) -> None:
        lab.configure(context=next(contexts))
        began_at = time.monotonic()
        report = (await http.post("/admin/reload")).raise_for_status().json()
        took.append(time.monotonic() - began_at)
        replaced.update(report["replaced"])
        assert not report["failed"], report

    async with under_traffic(server, lab.models, pause_s=0.1) as traffic:
        await every(seconds, reload, server)
    return {"num_reloads": len(took), "replaced": dict(replaced), "reload_s": spread(took), **traffic.summary()}


async def evict_under_traffic(server: ServerProcess, lab: Lab, seconds: float, *, budget_mb: int) -> Section:
    """Pauses are longer here: a model that is asked all the time is never idle, and so never evicted."""
    peaks: list[float] = []

    async def watch(_http: httpx.AsyncClient) -> None:
        peaks.append(sum(model["memory_bytes"] or 0 for model in server.models().values()) / (1 << 20))

    async with under_traffic(server, lab.models, pause_s=1.5) as traffic:
        await every(seconds, watch, server, pause_s=1.0)
    return {
        "budget_mb": budget_mb,
        "num_evictions": server.log_text().count('"model evicted"'),
        "most_measured_mib": round(max(peaks), 1),
        **traffic.summary(),
    }


async def every(
    seconds: float,
    act: Callable[[httpx.AsyncClient], Coroutine[Any, Any, None]],
    server: ServerProcess,
    *,
    pause_s: float = EVERY_S,
) -> None:
    ends_at = time.monotonic() + seconds
    async with httpx.AsyncClient(base_url=server.url, timeout=120) as http:
        while time.monotonic() < ends_at:
            await asyncio.sleep(pause_s)
            await act(http)


async def settle(http: httpx.AsyncClient, name: str, action: str) -> float:
    """Load or unload a model; return how long it took, in seconds."""
    began_at = time.monotonic()
    model = (await http.post(f"/v1/models/{name}/{action}")).raise_for_status().json()
    while model["state"] in ("loading", "draining"):
        await asyncio.sleep(0.02)
        model = (await http.get(f"/v1/models/{name}")).json()
    assert model["state"] == ("ready" if action == "load" else "unloaded"), model
    return time.monotonic() - began_at


def memory_mib(server: ServerProcess) -> float:
    return measure_memory(server.process.pid).total / (1 << 20)


def faults_of(parts: Section) -> list[str]:
    """What does not hold of what must."""
    left = parts["cycles"]["left_after_unload_mib"]["max"]
    return [
        *(f"{name}: requests failed: {part['failed']}" for name, part in parts.items() if part.get("failed")),
        *([f"{left} MiB are left after an unload"] if left > MAX_LEFT_MIB else []),
        *([] if parts["evict"]["num_evictions"] else ["nothing was evicted"]),
    ]


if __name__ == "__main__":
    main()
