"""Faults of workers: killed, crashing, standing still, short of memory, or only slow."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from pathlib import Path

import psutil

from benchmarks.fault_rig import (
    DONE,
    SMALL,
    Row,
    ask,
    client_of,
    neighbour_watched,
    num_starts,
    served,
    state_of,
    tell,
    until_busy,
    write_config,
)
from benchmarks.memory_limit import memory_limit
from benchmarks.server_process import ServerProcess

LIMIT_BYTES = 1 << 30
"""What a server and a small model need, and a worker that takes ever more soon has not."""


async def queued_requests_wait(folder: Path) -> Row:
    row = Row("1", "`kill -9` of a worker with 2 requests in work and 6 behind them")
    with served(folder, small={"max_sequences": 2}) as server:
        async with client_of(server) as client:
            worker = psutil.Process(server.worker_pids()[SMALL])
            running = [tell(client, SMALL, max_tokens=120) for _ in range(8)]
            await until_busy(worker)
            async with neighbour_watched(client, row):
                started = time.perf_counter()
                worker.kill()
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                row.figures["first error s"] = round(time.perf_counter() - started, 3)
                answers = await asyncio.gather(*running)
            row.figures["served all s"] = round(time.perf_counter() - started, 2)
    crashed = [each for each in answers if each.error.get("code") == "worker_crashed"]
    whole = [each for each in answers if each.text.endswith(DONE)]
    row.figures |= {"ended with an error": len(crashed), "served by the next worker": len(whole)}
    row.require(len(crashed) == 2 and len(whole) == 6, f"{len(crashed)} ended with an error, {len(whole)} were served")
    row.require_within(row.figures["first error s"], 2, "the first error")
    row.require(not any("[DONE]" in each.text for each in crashed), "a broken stream says [DONE]")
    row.outcome = "those in work end with one `worker_crashed` event and no `[DONE]`; the others never notice"
    return row


async def abort_in_a_loop(folder: Path) -> Row:
    row = Row("2", "`abort()` in llama.cpp at each request: a crash loop")
    with served(folder, faults=f"worker.decode:{SMALL}@3=abort") as server:
        async with client_of(server) as client, neighbour_watched(client, row):
            started = time.perf_counter()
            answers = [await ask(client, SMALL) for _ in range(5)]
            row.figures["five crashes s"] = round(time.perf_counter() - started, 2)
            last = await ask(client, SMALL)
            model = await state_of(client, SMALL)
            row.figures["refused s"] = round(last.took_s, 3)
        row.figures["workers started"] = num_starts(server, SMALL)
        log = server.log_text()
    codes = [each.error.get("code") for each in answers]
    row.require(codes == ["worker_crashed"] * 5, f"the crashes were answered with {codes}")
    row.require((last.status, last.error.get("code")) == (503, "model_unavailable"), f"then {last.status} {last.text}")
    row.require("retry-after" in last.headers, "no Retry-After")
    row.require(model["state"] == "failed", f"the model is {model['state']}")
    row.require(row.figures["workers started"] == 5, "a request that crashed its worker was tried again")
    row.require("signal SIGABRT" in log, "the log does not name the signal")
    row.outcome = "each request ends with `worker_crashed` and is not tried again; after 5 the model is `failed`"
    return row


async def victim_of_the_oom_killer(folder: Path) -> Row:
    row = Row("5", "memory runs out while a model works: whom does the kernel take?")
    with ExitStack() as stack:
        server = ServerProcess(write_config(folder), folder / "log", faults=f"worker.decode:{SMALL}@200=hog")
        pids = [server.process.pid, *(child.pid for child in server.process.children(recursive=True))]
        is_limited = stack.enter_context(memory_limit(pids, LIMIT_BYTES))
        stack.callback(server.stop)
        server.wait_until_settled()
        workers = server.worker_pids()
        scores = {name: _oom(pid) for name, pid in workers.items()}
        own = _oom(server.process.pid)
        if is_limited:
            await _run_out_of_memory(row, server)
    row.figures |= {"server's oom_score": own[1], "least of the workers'": min(score for _, score in scores.values())}
    row.require(all(adjusted == 500 for adjusted, _ in scores.values()), f"workers have {scores}")
    row.require(all(score > own[1] for _, score in scores.values()), f"server {own}, workers {scores}")
    row.outcome = "a worker (`oom_score_adj` 500), never the server; then it is row 1"
    if not is_limited:
        row.outcome += " (told by the scores alone: no cgroup could be made)"
    return row


async def _run_out_of_memory(row: Row, server: ServerProcess) -> None:
    worker = psutil.Process(server.worker_pids()[SMALL])
    async with client_of(server) as client, neighbour_watched(client, row):
        started = time.perf_counter()
        answer = await tell(client, SMALL)
        row.figures["error s"] = round(time.perf_counter() - started, 2)
        again = await ask(client, SMALL)
        row.figures["serves again s"] = round(time.perf_counter() - started, 2)
    row.require(answer.error.get("code") == "worker_crashed", f"the stream ended with {answer.text[-200:]}")
    row.require(again.status == 200, f"then {again.status}")
    row.require(not worker.is_running(), "the greedy worker is still there")
    row.require(server.process.is_running(), "the server is gone")
    row.require("signal SIGKILL" in server.log_text(), "the log does not name the signal")


def _oom(pid: int) -> tuple[int, int]:
    proc = Path(f"/proc/{pid}")
    return int((proc / "oom_score_adj").read_text()), int((proc / "oom_score").read_text())


async def stopped_worker(folder: Path) -> Row:
    row = Row("7", "a worker stands still (SIGSTOP) in the middle of a stream")
    with served(folder) as server:
        async with client_of(server) as client:
            worker = psutil.Process(server.worker_pids()[SMALL])
            stream = tell(client, SMALL)
            await until_busy(worker)
            async with neighbour_watched(client, row):
                started = time.perf_counter()
                worker.suspend()
                answer = await stream
                row.figures["error s"] = round(time.perf_counter() - started, 2)
                again = await ask(client, SMALL)
                row.figures["serves again s"] = round(time.perf_counter() - started, 2)
    row.require(answer.error.get("code") == "worker_crashed", f"the stream ended with {answer.text[-200:]}")
    row.require(row.figures["error s"] >= 9, "the error came before 10 s")
    row.require_within(row.figures["error s"], 12, "the error")
    row.require(again.status == 200, f"then {again.status}")
    row.require(not worker.is_running(), "the stopped worker is still there")
    row.outcome = "killed after 10 s without a heartbeat and started again; the stream ends with `worker_crashed`"
    return row


async def long_prefill(folder: Path, *, num_prompts: int = 4, num_sentences: int = 1200) -> Row:
    row = Row("7", "prompts that take long to compute")
    with served(folder, small={"kv_cells": 8192 * num_prompts}) as server:
        before = server.worker_pids()
        async with client_of(server) as client, neighbour_watched(client, row):
            prompts = [f"{number} " + "The quick brown fox jumps. " * num_sentences for number in range(num_prompts)]
            answers = await asyncio.gather(*(ask(client, SMALL, text, max_tokens=1) for text in prompts))
        row.require(server.worker_pids() == before, "the worker was replaced")
    row.figures["longest prefill s"] = round(max(each.took_s for each in answers), 1)
    row.require({each.status for each in answers} == {200}, f"{[each.status for each in answers]}")
    row.outcome = "computed: the heart beats beside, and the steps count"
    return row
