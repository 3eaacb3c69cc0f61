"""Faults of the server itself: killed, told to end, or started where it cannot be."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from pathlib import Path

import psutil

from benchmarks.fault_rig import (
    DONE,
    GIVE_UP_S,
    NEIGHBOUR,
    SCRIPTED,
    SMALL,
    Row,
    ask,
    client_of,
    says,
    served,
    tell,
    until,
    until_busy,
    write_config,
)
from benchmarks.server_process import HEARTH, ServerProcess, environment


async def killed_server(folder: Path) -> Row:
    row = Row("9", "`kill -9` of the server in the middle of streams")
    config = write_config(folder)
    started = time.perf_counter()
    with ServerProcess(config, folder / "log") as server:
        async with client_of(server) as client:
            await until(lambda: says(client, "/ready", 200), "the server does not get ready")
            row.figures["cold start s"] = round(time.perf_counter() - started, 2)
            stream = tell(client, SMALL)
            family = server.process.children(recursive=True)
            await until_busy(psutil.Process(server.worker_pids()[SMALL]))
            killed = time.perf_counter()
            server.process.kill()
            _, left = await asyncio.to_thread(psutil.wait_procs, family, timeout=5)
            row.figures["workers gone s"] = round(time.perf_counter() - killed, 3)
            await stream
        server.process.wait()
    port = int(server.url.rpartition(":")[2])
    started = time.perf_counter()
    with ServerProcess(config, folder / "log2", port=port) as again:
        async with client_of(again) as client:
            await until(lambda: says(client, "/ready", 200), "the server does not get ready again")
            row.figures["next start s"] = round(time.perf_counter() - started, 2)
    row.require(not left, f"{len(left)} processes are left")
    row.require_within(row.figures["workers gone s"], 2, "the end of the workers")
    row.outcome = "no process is left; the next server takes the same port and data directory"
    return row


async def terminated_with_streams(folder: Path, *, words: int = 200) -> Row:
    row = Row("16", "SIGTERM with 16 streams that end in time")
    with served(folder, small={**SCRIPTED, "script": [{"text": "word " * words, "delay_ms": 50}]}) as server:
        async with client_of(server) as client, client_of(server) as late:
            streams = [tell(client, SMALL) for _ in range(16)]
            await asyncio.sleep(0.5)
            started = time.perf_counter()
            server.process.send_signal(signal.SIGTERM)
            await until(lambda: says(late, "/ready", 503), "/ready does not say 503")
            row.figures["/ready 503 s"] = round(time.perf_counter() - started, 3)
            refused, healthy = await ask(late, NEIGHBOUR), await late.get("/health")
            answers = await asyncio.gather(*streams)
            row.figures["streams done s"] = round(time.perf_counter() - started, 2)
            code = await asyncio.to_thread(server.process.wait, 20)
            row.figures["ended s"] = round(time.perf_counter() - started, 2)
    whole = sum(each.text.endswith(DONE) for each in answers)
    row.figures["whole streams"] = whole
    row.require(whole == 16, f"{16 - whole} of 16 streams are not whole")
    row.require(refused.status == 503 and refused.headers.get("connection") == "close", f"then {refused.status}")
    row.require("retry-after" in refused.headers, "no Retry-After")
    row.require(healthy.status_code == 200, f"/health said {healthy.status_code}")
    row.require(code == 0, f"exit code {code}")
    row.outcome = "all end whole; new requests get 503 and `Connection: close`; exit code 0"
    return row


async def terminated_for_good(folder: Path, *, drain_s: float, signals: int) -> Row:
    what = "a second SIGTERM" if signals > 1 else f"streams outlast the drain of {drain_s:g} s"
    row = Row("16", f"SIGTERM with 16 streams; {what}")
    with served(folder, drain_s=drain_s, small=SCRIPTED) as server:
        async with client_of(server) as client, client_of(server) as late:
            streams = [tell(client, NEIGHBOUR) for _ in range(16)]
            await asyncio.sleep(0.5)
            started = time.perf_counter()
            server.process.send_signal(signal.SIGTERM)
            if signals > 1:
                await until(lambda: says(late, "/ready", 503), "/ready does not say 503")
                server.process.send_signal(signal.SIGTERM)
            answers = await asyncio.gather(*streams)
            row.figures["streams ended s"] = round(time.perf_counter() - started, 2)
            code = await asyncio.to_thread(server.process.wait, 20)
            row.figures["ended s"] = round(time.perf_counter() - started, 2)
    codes = {each.error.get("code") for each in answers}
    most_s = 2.0 if signals > 1 else drain_s + 1
    row.require(codes == {"model_unavailable"}, f"the streams ended with {codes}")
    row.require_within(row.figures["streams ended s"], most_s, "the end of the streams")
    row.require(code == 0, f"exit code {code}")
    row.outcome = "each stream ends with one error event; exit code 0"
    return row


async def refused_starts(folder: Path) -> list[Row]:
    rows = [
        Row("28", "two servers on one data directory"),
        Row("28", "the port is taken"),
        Row("28", "the data directory cannot be written"),
    ]
    with served(folder) as server:
        port = server.url.rpartition(":")[2]
        blocked = folder / "blocked"
        blocked.write_text("in the way")
        tries = [
            ([], {}, f"process {server.process.pid}"),
            (["--port", port], {"HEARTH_DATA_DIR": str(folder / "other")}, f"127.0.0.1:{port}"),
            ([], {"HEARTH_DATA_DIR": str(blocked)}, "cannot be written"),
        ]
        for row, (flags, variables, words) in zip(rows, tries, strict=True):
            await asyncio.to_thread(_try_to_start, row, folder / "models.yaml", flags, variables, words)
    return rows


def _try_to_start(row: Row, config: Path, flags: list[str], variables: dict[str, str], words: str) -> None:
    """Three times, of which the fastest counts: the machine may be busy."""
    took = []
    for _ in range(3):
        started = time.perf_counter()
        done = subprocess.run(
            [HEARTH, "serve", "--config", str(config), *flags],
            env={**environment(), **variables},
            capture_output=True,
            text=True,
            timeout=GIVE_UP_S,
            check=False,
        )
        took.append(time.perf_counter() - started)
    row.figures["ended s"] = round(min(took), 2)
    row.require((done.returncode, done.stdout) == (1, ""), f"exit code {done.returncode}, printed {done.stdout!r}")
    row.require(done.stderr.count("\n") == 1 and words in done.stderr, f"said {done.stderr!r}")
    row.require_within(min(took), 2, "the refusal")
    row.outcome = "one line that names it, exit code 1"
