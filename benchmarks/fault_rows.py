"""Faults, one by one: each is injected into a `hearth serve` of its own, and what must happen then is looked at from
outside, with a client's clock and in /proc. The numbers of the rows are those of docs/behaviour.md.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from benchmarks.server_process import HEARTH, ServerProcess, environment
from benchmarks.servers import ROOT

SMALL, NEIGHBOUR = "small", "neighbour"
"""The model that comes to harm, and one that must not notice."""

NEIGHBOUR_MODEL: dict[str, Any] = {
    "id": NEIGHBOUR,
    "kind": "chat",
    "backend": "script",
    "script": [{"match": "^slow", "text": "word " * 1000, "delay_ms": 50}, {"text": "here I am"}],
}

SCRIPTED = {"backend": "script", "source": None, "script": NEIGHBOUR_MODEL["script"]}
"""What makes the other model one without weights, too."""

ASK_PAUSE_S = 0.1
GIVE_UP_S = 120.0

DONE = "data: [DONE]\n\n"


@dataclass
class Row:
    """What became of one fault.

    Attributes:
        outcome: What happened, for people.
        figures: Seconds, counts, and what else was measured.
        broken: What must hold and did not.
        late: What must be so soon and was not.
    """

    number: str
    fault: str
    outcome: str = ""
    figures: dict[str, float] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)

    def require(self, holds: bool, what: str) -> None:
        if not holds:
            self.broken.append(what)

    def require_within(self, seconds: float, most_s: float, what: str) -> None:
        """What only a machine that does nothing else can be held to."""
        if seconds >= most_s:
            self.late.append(f"{what} took {seconds:.2f} s, not less than {most_s:g}")


@dataclass(frozen=True)
class Answer:
    """One answer, or `status` 0 where the connection broke before one came."""

    status: int
    text: str
    headers: httpx.Headers
    took_s: float

    @property
    def error(self) -> Any:
        """The error of an answer or of a stream's last event; an empty one where there is none."""
        last = self.text.rstrip().rpartition("data: ")[2] if "data: " in self.text else self.text
        try:
            return json.loads(last).get("error", {})
        except ValueError:
            return {}


# ---- a server with two models


def weights() -> Path:
    """The file of the default chat model."""
    (found,) = (ROOT / "weights" / "smollm2-135m-instruct").glob("*.gguf")
    return found


def write_config(folder: Path, *, small: dict[str, Any] | None = None, **server: object) -> Path:
    """models.yaml with the default chat model as `small`, changed as told, and its scripted neighbour."""
    model = {"id": SMALL, "kind": "chat", "backend": "llama_cpp", "source": f"file:{weights()}", "context": 8192}
    settings = {"port": 0, "data_dir": str(folder / "data"), "tune": False, **server}
    config = folder / "models.yaml"
    models = [{**model, **(small or {})}, NEIGHBOUR_MODEL]
    config.write_text(yaml.safe_dump({"server": settings, "models": models}), encoding="utf-8")
    return config


@contextmanager
def served(folder: Path, *, faults: str = "", settled: bool = True, **config: Any) -> Iterator[ServerProcess]:
    with ServerProcess(write_config(folder, **config), folder / "log", faults=faults) as server:
        if settled:
            server.wait_until_settled()
        yield server


async def ask(client: httpx.AsyncClient, model: str, text: str = "Say hi.", **more: object) -> Answer:
    """One chat request, its answer whole."""
    body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 16, **more}
    started = time.perf_counter()
    text, status, headers = "", 0, httpx.Headers()
    try:
        async with client.stream("POST", "/v1/chat/completions", json=body) as response:
            status, headers = response.status_code, response.headers
            async for piece in response.aiter_text():
                text += piece
    except httpx.TransportError:
        text += "\n(the connection broke)"
    return Answer(status, text, headers, time.perf_counter() - started)


def tell(client: httpx.AsyncClient, model: str, **more: object) -> asyncio.Task[Answer]:
    """A stream that goes on for as long as the model may."""
    story = {"stream": True, "max_tokens": 4000, **({} if model == NEIGHBOUR else {"ignore_eos": True})}
    return asyncio.create_task(ask(client, model, "slow: tell a story", **{**story, **more}))


@asynccontextmanager
async def neighbour_watched(client: httpx.AsyncClient, row: Row) -> AsyncIterator[None]:
    """The neighbour is asked all the time, and so is `/health`; all of it must be answered, health within a second."""
    statuses: Counter[int] = Counter()
    slowest_s = 0.0

    async def keep_asking() -> None:
        nonlocal slowest_s
        while True:
            statuses[(await ask(client, NEIGHBOUR)).status] += 1
            started = time.perf_counter()
            statuses[(await client.get("/health")).status_code] += 1
            slowest_s = max(slowest_s, time.perf_counter() - started)
            await asyncio.sleep(ASK_PAUSE_S)

    asking = asyncio.create_task(keep_asking())
    try:
        yield
    finally:
        asking.cancel()
        await asyncio.wait((asking,))
        if not asking.cancelled():
            asking.result()  # raises what ended it
    row.figures["requests to others"] = statuses.total()
    row.figures["slowest /health s"] = round(slowest_s, 3)
    row.require(set(statuses) == {200}, f"requests to others got {dict(statuses)}")
    row.require_within(slowest_s, 1, "/health")


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    give_up_at = time.perf_counter() + GIVE_UP_S
    while not await condition():
        if time.perf_counter() > give_up_at:
            raise TimeoutError(what)
        await asyncio.sleep(0.02)


async def state_of(client: httpx.AsyncClient, model: str) -> dict[str, Any]:
    found = (await client.get(f"/v1/models/{model}")).json()
    assert isinstance(found, dict)
    return found


def client_of(server: ServerProcess) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=server.url, timeout=5 * GIVE_UP_S)


def num_starts(server: ServerProcess, model: str) -> int:
    events = [json.loads(line) for line in server.log_text().splitlines() if '"worker started"' in line]
    return sum(event["model"] == model for event in events)


# ---- rows


async def queued_requests_wait(folder: Path) -> Row:
    row = Row("1", "`kill -9` of a worker with 2 requests in work and 6 behind them")
    with served(folder, small={"max_sequences": 2}) as server:
        async with client_of(server) as client:
            worker = psutil.Process(server.worker_pids()[SMALL])
            running = [tell(client, SMALL, max_tokens=120) for _ in range(8)]
            await _until_busy(worker)
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


async def _until_busy(worker: psutil.Process, cpu_s: float = 0.5) -> None:
    def used_s() -> float:
        times = worker.cpu_times()
        return float(times.user + times.system)

    idle_s = used_s()

    async def is_busy() -> bool:
        return used_s() >= idle_s + cpu_s

    await until(is_busy, "the worker does not compute")


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


async def victim_of_the_oom_killer(folder: Path) -> Row:
    row = Row("5", "memory runs out while a model works: whom does the kernel take?")
    with served(folder) as server:
        pids = server.worker_pids()
        scores = {name: _oom(pid) for name, pid in pids.items()}
        own = _oom(server.process.pid)
    row.figures |= {"server's oom_score": own[1], "least of the workers'": min(score for _, score in scores.values())}
    row.require(all(adjusted == 500 for adjusted, _ in scores.values()), f"workers have {scores}")
    row.require(all(score > own[1] for _, score in scores.values()), f"server {own}, workers {scores}")
    row.outcome = "a worker (`oom_score_adj` 500), never the server; then it is row 1"
    return row


def _oom(pid: int) -> tuple[int, int]:
    proc = Path(f"/proc/{pid}")
    return int((proc / "oom_score_adj").read_text()), int((proc / "oom_score").read_text())


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
            await until(lambda: _says(client, "/health", 200), "the server does not serve")
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


async def _says(client: httpx.AsyncClient, path: str, status: int) -> bool:
    try:
        return (await client.get(path)).status_code == status
    except httpx.TransportError:
        return False


async def stopped_worker(folder: Path) -> Row:
    row = Row("7", "a worker stands still (SIGSTOP) in the middle of a stream")
    with served(folder) as server:
        async with client_of(server) as client:
            worker = psutil.Process(server.worker_pids()[SMALL])
            stream = tell(client, SMALL)
            await _until_busy(worker)
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
                await until(lambda: _says(client, "/ready", 200), "the server does not get ready")
    row.require(ready.status_code == 503 and models[SMALL]["state"] == "loading", f"/ready said {ready.text}")
    row.require(is_held and answer.status == 200, f"the request got {answer.status}")
    row.outcome = "`/health` 200, `/ready` 503 with `loading`; a request waits, and is answered"
    return row


async def _is_stopped(server: ServerProcess) -> bool:
    pid = server.worker_pids().get(SMALL)
    return pid is not None and psutil.Process(pid).status() == psutil.STATUS_STOPPED


async def killed_server(folder: Path) -> Row:
    row = Row("9", "`kill -9` of the server in the middle of streams")
    config = write_config(folder)
    started = time.perf_counter()
    with ServerProcess(config, folder / "log") as server:
        async with client_of(server) as client:
            await until(lambda: _says(client, "/ready", 200), "the server does not get ready")
            row.figures["cold start s"] = round(time.perf_counter() - started, 2)
            stream = tell(client, SMALL)
            family = server.process.children(recursive=True)
            await _until_busy(psutil.Process(server.worker_pids()[SMALL]))
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
            await until(lambda: _says(client, "/ready", 200), "the server does not get ready again")
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
            await until(lambda: _says(late, "/ready", 503), "/ready does not say 503")
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
                await until(lambda: _says(late, "/ready", 503), "/ready does not say 503")
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
