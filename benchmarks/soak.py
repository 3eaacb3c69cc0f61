"""A soak: half an hour of everything at once, gently. Do memory, descriptors and latencies stay what they were?

    python -m benchmarks.soak                     # thirty minutes, and some seconds
    python -m benchmarks.soak --minutes 2 --out /tmp/soak.json
    python -m benchmarks.soak_table               # what has been measured, into docs/performance.md

Starts `hearth serve` with the default models, and clients that ask, pause and ask again: chats, as streams and as a
whole, completions, embeddings, reranks, rounds of a document (uploaded, found, answered from, deleted), scrapes of
`/metrics`; beside them one that leaves in mid-stream, one that runs out of time, one that sends nonsense, and one that
breaks off within a head. Caches are small, to be full when memory begins to count: what grows then is a leak.

Every five seconds memory, file descriptors and threads of each process are taken. After the warm-up, the last third of
the time is held against the first: memory may not grow by more than 100 MB, nor descriptors by more than 5; nobody may
get anything but what was due; no process may be replaced or stay a zombie; and nothing may be left when all are gone.
Latencies are held to 1.2 times, too, which is not required: machines are not that quiet.

Writes benchmarks/results/soak.json, and ends with 1 if something that must hold did not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path

import httpx
import yaml

from benchmarks.results import SOAK, Section, environment
from benchmarks.server_process import ServerProcess
from benchmarks.servers import ROOT, default_models
from benchmarks.soak_figures import Span, minute_rows, missed, summarise
from benchmarks.soak_traffic import SORTS, Seen, run_clients
from benchmarks.soak_watch import Sample, watch
from server.loadgen.prompts import new_seed

CACHE_MB = 2
"""Of each encoder: full within some minutes."""

PREFIX_MEMORY_MB = 64

LEAVE_S = 5.0
"""In which the server has to have let go of all requests, once their clients are gone."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--out", type=Path, default=SOAK)
    arguments = parser.parse_args()
    about = {
        **environment(),
        "minutes": arguments.minutes,
        "clients": {sort.visit.__name__: {"clients": sort.num_clients, "pause_s": sort.pause_s} for sort in SORTS},
    }
    with (
        tempfile.TemporaryDirectory() as folder,
        ServerProcess(write_config(Path(folder)), Path(folder) / "log") as server,
    ):
        server.wait_until_settled()
        measured = asyncio.run(soak(server, 60 * arguments.minutes))
    arguments.out.write_text(json.dumps({**about, **measured}, indent=1) + "\n", encoding="utf-8")
    summary = measured["summary"]
    print(json.dumps(summary, indent=1))
    for fault in missed(summary):
        print(f"FAULT: {fault}")
    print(f"written to {arguments.out}")
    sys.exit(bool(missed(summary)))


def write_config(folder: Path) -> Path:
    caches = {"chat": {"prefix_memory_mb": PREFIX_MEMORY_MB}}
    models = [{**model, **caches.get(model["kind"], {"cache_mb": CACHE_MB})} for model in default_models()]
    server = {"weights_dir": str(ROOT / "weights"), "data_dir": str(folder / "data"), "tune": False}
    config = folder / "models.yaml"
    config.write_text(yaml.safe_dump({"server": server, "models": models}), encoding="utf-8")
    return config


async def soak(server: ServerProcess, seconds: float) -> Section:
    seen, samples, is_over = Seen(), list[Sample](), asyncio.Event()
    before = server.worker_pids()
    span = Span(time.perf_counter(), time.perf_counter() + seconds)
    watching = asyncio.create_task(watch(server, samples, is_over))
    clients = asyncio.create_task(run_clients(server.url, seen, is_over, seed=new_seed()))
    await asyncio.wait((watching, clients), timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    is_over.set()
    await asyncio.gather(watching, clients)
    await look_for_leftovers(server.url, seen)
    is_unchanged = server.process.is_running() and server.worker_pids() == before
    return {
        "summary": summarise(span, samples, seen, are_processes_unchanged=is_unchanged),
        "by_minute": minute_rows(span, samples, seen),
    }


async def look_for_leftovers(url: str, seen: Seen) -> None:
    """Requests that still run, files, and vector stores, when everybody has gone and everything was deleted."""
    give_up_s = time.perf_counter() + LEAVE_S
    async with httpx.AsyncClient(base_url=url, timeout=30) as http:
        while live := (await http.get("/admin/requests")).json()["live"]:
            if time.perf_counter() > give_up_s:
                seen.failures[f"requests run without clients: {live}"[:500]] += 1
                break
            await asyncio.sleep(0.1)
        for path in ("/v1/files", "/v1/vector_stores"):
            if left := (await http.get(path)).json()["data"]:
                seen.failures[f"{path} still has {left}"[:500]] += 1


if __name__ == "__main__":
    main()
