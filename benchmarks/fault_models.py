"""Faults of models: weights that are broken, cut off under way, too large, or long in loading."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import time
from pathlib import Path

import psutil
import yaml

from benchmarks.fault_rig import (
    NEIGHBOUR,
    NEIGHBOUR_MODEL,
    SMALL,
    Row,
    ask,
    client_of,
    neighbour_watched,
    says,
    served,
    state_of,
    until,
    weights,
)
from benchmarks.server_process import ServerProcess


async def truncated_while_mapped(folder: Path) -> Row:
    row = Row("3", "the model's file is truncated while it is mapped")
    own = folder / "own.gguf"
    shutil.copyfile(weights(), own)
    with served(folder, small={"source": f"file:{own}"}) as server:
        async with client_of(server) as client:
            before = await ask(client, SMALL)
            row.require(before.status == 200, f"before the fault: {before.status}")
            async with neighbour_watched(client, row):
                os.truncate(own, 1 << 20)
                answers = [await ask(client, SMALL, f"Say {number}.") for number in range(3)]
                model = await state_of(client, SMALL)
        deaths = sorted(set(re.findall(r"signal (SIG\w+)", server.log_text())))
    statuses = [each.status for each in answers]
    row.figures["requests refused"] = sum(status == 503 for status in statuses)
    row.require(model["state"] in ("failed", "ready"), f"the model is {model['state']}")
    row.require(set(statuses) <= {200, 503}, f"answers {statuses}")
    has_failed = model["state"] == "failed"
    outcome = f"the model is `failed`: {model['error']}" if has_failed else "the copy in memory serves on"
    row.outcome = f"its worker dies of {', '.join(deaths)}; {outcome}" if deaths else outcome
    return row


async def no_memory_to_load(folder: Path) -> Row:
    row = Row("4", "a worker gets no more memory (`RLIMIT_AS`) when it begins to load")
    with served(folder, faults=f"worker.load:{SMALL}=oom", settled=False) as server:
        async with client_of(server) as client:
            async with neighbour_watched(client, row):
                started = time.perf_counter()

                async def has_failed() -> bool:
                    return bool((await state_of(client, SMALL))["state"] == "failed")

                await until(has_failed, "the model does not fail")
                row.figures["failed s"] = round(time.perf_counter() - started, 2)
                answer = await ask(client, SMALL)
            workers = server.worker_pids()
    row.require(answer.status == 503 and answer.error.get("code") == "model_unavailable", f"{answer.status}")
    row.require(SMALL not in workers, "its worker still runs")
    row.outcome = f"the model is `failed`: {answer.error.get('message', '')}"
    return row


async def broken_weights_at_start(folder: Path) -> Row:
    row = Row("6", "weights that are corrupt, truncated, missing, or a folder, at the start")
    broken = ("corrupt", "truncated", "missing", "folder")
    (folder / "corrupt.gguf").write_bytes(b"GGUF" + bytes(range(256)) * 64)
    with weights().open("rb") as whole:
        (folder / "truncated.gguf").write_bytes(whole.read(8 << 20))
    (folder / "folder.gguf").mkdir()
    models = [
        {"id": name, "kind": "chat", "backend": "llama_cpp", "source": f"file:{name}.gguf", "context": 512}
        for name in broken
    ]
    config = folder / "models.yaml"
    config.write_text(
        yaml.safe_dump({"server": {"port": 0, "tune": False}, "models": [*models, NEIGHBOUR_MODEL]}), encoding="utf-8"
    )
    started = time.perf_counter()
    with ServerProcess(config, folder / "log") as server:
        async with client_of(server) as client:
            await until(lambda: says(client, "/health", 200), "the server does not serve")
            row.figures["start s"] = round(time.perf_counter() - started, 2)
            server.wait_until_settled()
            ready = await client.get("/ready")
            answer = await ask(client, NEIGHBOUR)
    states = {name: model["state"] for name, model in ready.json()["models"].items()}
    row.require_within(row.figures["start s"], 5, "the start")
    row.require(ready.status_code == 503, f"/ready says {ready.status_code}")
    row.require({name for name, state in states.items() if state == "failed"} == set(broken), f"{states}")
    row.require(answer.status == 200, "the other model does not answer")
    row.outcome = "the server starts; `/ready` names them with their reasons; the others are served"
    return row


async def slow_load(folder: Path) -> Row:
    row = Row("8", "a model takes long to load (its worker is stopped for a while)")
    with served(folder, faults=f"worker.load:{SMALL}=stop", settled=False) as server:
        async with client_of(server) as client:
            await until(lambda: _is_stopped(server), "the worker is not stopped")
            async with neighbour_watched(client, row):
                waiting = asyncio.create_task(ask(client, SMALL))
                ready = await client.get("/ready")
                models = ready.json()["models"]
                await asyncio.sleep(1)
                is_held = not waiting.done()
                os.kill(server.worker_pids()[SMALL], signal.SIGCONT)
                started = time.perf_counter()
                answer = await waiting
                row.figures["answered after it goes on s"] = round(time.perf_counter() - started, 2)
                await until(lambda: says(client, "/ready", 200), "the server does not get ready")
    row.require(ready.status_code == 503 and models[SMALL]["state"] == "loading", f"/ready said {ready.text}")
    row.require(is_held and answer.status == 200, f"the request got {answer.status}")
    row.outcome = "`/health` 200, `/ready` 503 with `loading`; a request waits, and is answered"
    return row


async def _is_stopped(server: ServerProcess) -> bool:
    pid = server.worker_pids().get(SMALL)
    return pid is not None and psutil.Process(pid).status() == psutil.STATUS_STOPPED
