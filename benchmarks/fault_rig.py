"""What the rows of faults are injected into and noted in: a `hearth serve` with two models, and a `Row` for each.

`fault_workers.py`, `fault_models.py` and `fault_server.py` have the rows. What must happen is looked at from outside,
with a client's clock and in /proc. Their numbers are those of docs/behaviour.md.
"""

from __future__ import annotations

import asyncio
import json
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

from benchmarks.server_process import ServerProcess
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


async def until_busy(worker: psutil.Process, cpu_s: float = 0.5) -> None:
    def used_s() -> float:
        times = worker.cpu_times()
        return float(times.user + times.system)

    idle_s = used_s()

    async def is_busy() -> bool:
        return used_s() >= idle_s + cpu_s

    await until(is_busy, "the worker does not compute")


async def says(client: httpx.AsyncClient, path: str, status: int) -> bool:
    try:
        return (await client.get(path)).status_code == status
    except httpx.TransportError:
        return False
