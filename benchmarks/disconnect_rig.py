"""What clients leave: a `hearth serve` with the default models, a store to search, and where a request can be when its
client goes.

Each of `PHASES` takes some clients so far. What the server has in hand is looked at from outside, in `/metrics`.
"""

from __future__ import annotations

import asyncio
import random
import re
import secrets
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import httpx

from benchmarks.fault_rig import client_of, until
from benchmarks.leaving_client import ENDING, HEAD, PIECE, LeavingClient
from benchmarks.server_process import ServerProcess

CHAT, EMBEDDING = "smollm2-135m-instruct", "all-minilm-l6-v2"

ANSWER_TOKENS = 8
"""Of the answers whose clients leave at the end."""

STEADY_S = 0.7
"""How long nothing may be in hand until it is believed: workers tell every half second what they have."""

LOOK_S = 0.02
UPLOAD_BYTES = 1 << 20

_GAUGE = re.compile(
    r"^hearth_(num_requests_running|num_requests_waiting|kv_cache_usage_ratio|live_requests)(?:\{.*\})? (\S+)$", re.M
)
_TEXT = "Knead the dough for ten minutes, then let it rise in a warm place for an hour. "


@dataclass(frozen=True)
class InHand:
    """What a server has to do, all models together."""

    running: float
    waiting: float
    cells: float
    live: float


@dataclass(frozen=True)
class Site:
    """A server, an observer, and what there is to ask.

    Attributes:
        num_places: Generations that run at the same time.
    """

    server: ServerProcess
    http: httpx.AsyncClient
    store_id: str
    num_places: int

    async def in_hand(self) -> InHand:
        sums: defaultdict[str, float] = defaultdict(float)
        for name, value in _GAUGE.findall((await self.http.get("/metrics")).text):
            sums[name] += float(value)
        return InHand(
            running=sums["num_requests_running"],
            waiting=sums["num_requests_waiting"],
            cells=sums["kv_cache_usage_ratio"],
            live=sums["live_requests"],
        )

    async def asked_models(self) -> set[str]:
        """Ids of the last requests that asked a model and are over."""
        found = (await self.http.get("/admin/requests")).json()["recent"]
        return {each["request_id"] for each in found}

    async def freed_s(self, *, num_others: int = 0) -> float:
        """Wait until nothing is in hand but `num_others` generations; return how long that took."""
        begun_at = time.perf_counter()
        free_at: float | None = None

        async def is_free() -> bool:
            nonlocal free_at
            found, now = await self.in_hand(), time.perf_counter()
            is_idle = found.running == found.cells == 0 or num_others > 0
            if found.waiting or found.live > num_others or not is_idle:
                free_at = None
            elif free_at is None:
                free_at = now
            return free_at is not None and now - free_at > STEADY_S

        await until(is_free, "something is in hand still")
        assert free_at is not None
        return free_at - begun_at


@asynccontextmanager
async def open_site(server: ServerProcess) -> AsyncIterator[Site]:
    """Ingest a document on bread into a store."""
    async with client_of(server) as http:
        data = {"purpose": "assistants"}
        file = (await http.post("/v1/files", files={"file": ("bread.txt", _TEXT.encode() * 20)}, data=data)).json()
        store = (await http.post("/v1/vector_stores", json={"file_ids": [file["id"]]})).raise_for_status().json()

        async def is_ingested() -> bool:
            found = (await http.get(f"/v1/vector_stores/{store['id']}")).json()
            return bool(found["file_counts"]["completed"] == 1)

        await until(is_ingested, "the document is not ingested")
        runtime = (await http.get(f"/v1/models/{CHAT}")).json()["runtime"]
        yield Site(server, http, store["id"], int(runtime["details"]["max_sequences"]))


# ---- where requests are


@dataclass(frozen=True)
class Phase:
    """Where a request is when its client leaves.

    Attributes:
        reach: Has clients send their requests, and returns when these are there.
        asks_model: Whether it has a record of usage for certain, or for certain none; None: as it happens.
        least, most: Tokens of its answer that may be in the record; pieces that came are in it anyway.
        may_read: Whether the prompt may count: not where nothing was computed of it.
        around: What has to go on meanwhile, and how many generations that is.
    """

    name: str
    reach: Callable[[Site, Sequence[LeavingClient]], Awaitable[None]]
    asks_model: bool | None = True
    least: int = 0
    most: int | None = None
    may_read: bool = True
    around: Callable[[Site], AbstractAsyncContextManager[int]] = lambda _site: nullcontext(0)


def _chat(text: str, **more: object) -> dict[str, Any]:
    asked = {"model": CHAT, "messages": [{"role": "user", "content": f"{secrets.token_hex(4)}: {text}"}]}
    return {**asked, "stream": True, "ignore_eos": True, **more}


async def _tell(client: LeavingClient) -> None:
    await client.ask("/v1/chat/completions", _chat("tell a long story", max_tokens=4000))


@asynccontextmanager
async def _all_places_taken(site: Site) -> AsyncIterator[int]:
    clients = [LeavingClient(site.server.url, f"before-{secrets.token_hex(8)}") for _ in range(site.num_places)]
    reading = []
    for client in clients:
        await _tell(client)
        await client.read_until(PIECE)
        reading.append(asyncio.create_task(client.read_until(ENDING)))
    yield site.num_places
    assert not any(task.done() for task in reading), "a story that should have kept others waiting has ended"
    for task in reading:
        task.cancel()
    await asyncio.wait(reading)
    for client in clients:
        client.leave(abruptly=True)


async def _queued(site: Site, clients: Sequence[LeavingClient]) -> None:
    await asyncio.gather(*map(_tell, clients))

    async def all_wait() -> bool:
        return (await site.in_hand()).waiting == len(clients)

    await until(all_wait, "the requests do not wait")


async def _prefill(site: Site, clients: Sequence[LeavingClient]) -> None:
    """At least one is being computed, and none is done: together they take seconds."""
    for client in clients:
        await client.ask("/v1/chat/completions", _chat(_TEXT * 100, max_tokens=4000))

    async def one_runs() -> bool:
        return (await site.in_hand()).cells > 0

    await until(one_runs, "no prompt is read")


async def _decode(_site: Site, clients: Sequence[LeavingClient]) -> None:
    await asyncio.gather(*map(_tell, clients))
    await asyncio.gather(*(client.read_until(PIECE, random.randint(1, 12)) for client in clients))


async def _ended(_site: Site, clients: Sequence[LeavingClient]) -> None:
    """Streams whose last piece has come and whose end has not, and whole answers of which one byte was read."""

    async def reach(client: LeavingClient, *, stream: bool) -> None:
        await client.ask("/v1/chat/completions", _chat("count", max_tokens=ANSWER_TOKENS, stream=stream))
        await client.read_until(ENDING if stream else HEAD)

    await asyncio.gather(*(reach(client, stream=bool(number % 2)) for number, client in enumerate(clients)))


async def _sending(_site: Site, clients: Sequence[LeavingClient]) -> None:
    """Files and requests of which a part has come."""
    for number, client in enumerate(clients):
        if number % 2:
            await client.upload(_TEXT.encode() * (UPLOAD_BYTES // len(_TEXT)), share=random.uniform(0.1, 0.9))
        else:
            await client.ask("/v1/chat/completions", _chat(_TEXT * 100), share=random.uniform(0.1, 0.9))
    await asyncio.sleep(0.1)


async def _encoding(site: Site, clients: Sequence[LeavingClient]) -> None:
    for client in clients:
        texts = [f"{secrets.token_hex(4)} {_TEXT * 4}" for _ in range(100)]
        await client.ask("/v1/embeddings", {"model": EMBEDDING, "input": texts})

    async def one_runs() -> bool:
        found = await site.in_hand()
        return found.running + found.waiting > 0

    await until(one_runs, "nothing is encoded")


async def _grounded(site: Site, clients: Sequence[LeavingClient]) -> None:
    """Anywhere between the question and the end of an answer from sources."""

    async def reach(client: LeavingClient) -> None:
        tool = {"type": "file_search", "vector_store_ids": [site.store_id]}
        await client.ask("/v1/chat/completions", _chat("how long do I knead?", tools=[tool], max_tokens=200))
        await asyncio.sleep(random.uniform(0, 1))

    await asyncio.gather(*map(reach, clients))


PHASES = (
    Phase("queued", _queued, most=0, may_read=False, around=_all_places_taken),
    Phase("prefill", _prefill, most=0),
    Phase("decode", _decode, least=1, most=4000),
    Phase("after the last token", _ended, least=ANSWER_TOKENS, most=ANSWER_TOKENS),
    Phase("mid-upload", _sending, asks_model=False),
    Phase("encoding", _encoding, most=0),
    Phase("mid-RAG", _grounded, asks_model=None, most=200),
)
