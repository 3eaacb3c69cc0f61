"""Clients of the soak: one kind each, which visits the server, checks what it gets, pauses, and comes again.

A visit that gets what it should leaves its times; another one leaves a line that says what it got. Nothing here ends
the run, and nothing knows how long it is.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from benchmarks import hostile_bodies
from benchmarks.chat_loads import chat_body
from benchmarks.hostile import send_hostile, what_is_wrong
from benchmarks.hostile_requests import (
    CHAT,
    CHATS,
    COMPLETIONS,
    EMBEDDING,
    EMBEDDINGS,
    RERANK,
    RERANKS,
    STORES,
    Body,
)
from benchmarks.load import HOST, Answer, ask
from benchmarks.prompts import Prompts

TIMEOUT_S = 120.0
POLL_S = 0.1
MAX_TOKENS = 32
LONG = 2000
"""Tokens of an answer that nobody waits for the end of."""

DEADLINE_S = 0.5
LATEST_S = 5.0
"""In which a request with that deadline has its error: not at all in time would be a failure of its own."""


class WrongAnswer(Exception):
    """Somebody got something else than what was due; the message says what."""


@dataclass
class Seen:
    """What all clients saw.

    Attributes:
        times: Of each kind: when it was answered, on `time.perf_counter`, and how many seconds that took.
        failures: What came in place of what was due, and how often.
    """

    times: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)

    def note(self, kind: str, seconds: float) -> None:
        self.times.setdefault(kind, []).append((time.perf_counter(), seconds))

    @contextmanager
    def timed(self, kind: str) -> Iterator[None]:
        """Note what the block takes, unless it raises."""
        started_s = time.perf_counter()
        yield
        self.note(kind, time.perf_counter() - started_s)


@dataclass
class Client:
    """One client: its connections, its texts, and where it notes what it sees."""

    http: httpx.AsyncClient
    prompts: Prompts
    seen: Seen

    @property
    def port(self) -> int:
        port = self.http.base_url.port
        assert port
        return port

    @property
    def chance(self) -> random.Random:
        return self.prompts.random

    async def get(self, path: str) -> Any:
        return _checked(await self.http.get(path))

    async def post(self, path: str, body: Body) -> Any:
        return _checked(await self.http.post(path, json=body))

    async def delete(self, path: str) -> None:
        _checked(await self.http.delete(path))


# ---- those who wait for their answers


async def stream(client: Client) -> None:
    answer = await _stream(client, chat_body(client.prompts.words(40), max_tokens=MAX_TOKENS))
    client.seen.note("first word of a stream", answer.ttft_s)
    client.seen.note("stream", answer.latency_s)


async def chat(client: Client) -> None:
    with client.seen.timed("chat"):
        body = await client.post(CHATS, chat_body(client.prompts.words(40), max_tokens=MAX_TOKENS))
    _require(body["choices"][0]["message"]["content"] and body["usage"]["completion_tokens"] == MAX_TOKENS, body)


async def completion(client: Client) -> None:
    text = {"prompt": client.prompts.words(40)}
    with client.seen.timed("completion"):
        body = await client.post(COMPLETIONS, {"model": CHAT, "max_tokens": MAX_TOKENS, "ignore_eos": True, **text})
    _require(body["usage"]["completion_tokens"] == MAX_TOKENS, body)


async def embedding(client: Client) -> None:
    texts = [client.prompts.words(40) for _ in range(8)]
    with client.seen.timed("embedding"):
        body = await client.post(EMBEDDINGS, {"model": EMBEDDING, "input": texts})
    _require([len(each["embedding"]) for each in body["data"]] == [384] * 8, "vectors are missing, or short")


async def rerank(client: Client) -> None:
    texts = [client.prompts.words(40) for _ in range(8)]
    with client.seen.timed("rerank"):
        body = await client.post(RERANKS, {"model": RERANK, "query": client.prompts.words(8), "documents": texts})
    _require(sorted(each["index"] for each in body["results"]) == list(range(8)), body)


async def documents(client: Client) -> None:
    """A round: a document into a store of its own, found, answered from, and both gone."""
    word = f"zq{client.chance.getrandbits(48):012x}"
    text = f"# {word}\n\nThe {word} is kept in the {client.prompts.words(3)}\n\n{client.prompts.words(120)}\n"
    with client.seen.timed("upload"):
        upload = {"file": (f"{word}.md", text.encode())}
        file = _checked(await client.http.post("/v1/files", files=upload, data={"purpose": "assistants"}))
    store = (await client.post(STORES, {"name": word}))["id"]
    try:
        with client.seen.timed("ingestion"):
            await client.post(f"{STORES}/{store}/files", {"file_id": file["id"]})
            await _until_ingested(client, f"{STORES}/{store}/files/{file['id']}")
        question = f"Where is the {word} kept?"
        with client.seen.timed("search"):
            found = await client.post(f"{STORES}/{store}/search", {"query": question})
        _require(found["data"] and found["data"][0]["file_id"] == file["id"], found)
        tool = {"type": "file_search", "vector_store_ids": [store]}
        answer = await _stream(client, {**chat_body(question, max_tokens=MAX_TOKENS), "tools": [tool]})
        _require(answer.num_sources > 0, "a grounded answer has no sources")
        client.seen.note("grounded chat", answer.latency_s)
    finally:
        with client.seen.timed("deletion of store and file"):
            await client.delete(f"{STORES}/{store}")
            await client.delete(f"/v1/files/{file['id']}")


async def metrics(client: Client) -> None:
    with client.seen.timed("/metrics"):
        answer = await client.http.get("/metrics")
    _require(answer.status_code == 200 and "hearth_" in answer.text, answer.text[:200])


# ---- those who do not


async def vanish(client: Client) -> None:
    """Leave in the middle of a long stream."""
    body = {**chat_body(client.prompts.words(40), max_tokens=LONG), "stream": True}
    most = client.chance.randrange(1, 20)
    with client.seen.timed("left in mid-stream"):
        async with client.http.stream("POST", CHATS, json=body) as response:
            _require(response.status_code == 200, response.status_code)
            num_events = 0
            async for line in response.aiter_lines():
                num_events += line.startswith("data: {")
                if num_events > most:
                    return
    raise WrongAnswer("the stream ended before its client left")


async def run_out_of_time(client: Client) -> None:
    """A long answer, as a whole or as a stream, for somebody who waits half a second."""
    body = {**chat_body(client.prompts.words(40), max_tokens=LONG), "stream": client.chance.random() < 0.5}
    started_s = time.perf_counter()
    answer = await client.http.post(CHATS, json=body, headers={"x-request-timeout": str(DEADLINE_S)})
    took_s = time.perf_counter() - started_s
    last = answer.text.rstrip().rpartition("data: ")[2] if answer.status_code == 200 else answer.text
    code = json.loads(last).get("error", {}).get("code")
    _require(code == "deadline_exceeded" and answer.status_code in (200, 504), f"{answer.status_code} {last[:200]}")
    _require(took_s < LATEST_S, f"told of its deadline after {took_s:.1f} s")
    client.seen.note("out of time", took_s)


async def send_nonsense(client: Client) -> None:
    rows = hostile_bodies.ROWS
    [make] = client.chance.choices(list(rows), list(rows.values()))
    request = make(client.chance)
    with client.seen.timed("bad request"):
        status, text = await send_hostile(client.http, request)
    if wrong := what_is_wrong(request, status, text):
        raise WrongAnswer(f"{request.row} {request.path} {request.content[:100]!r}: {wrong}")


async def break_off(client: Client) -> None:
    """Connect, send a part of a head, and go: with a farewell or without."""
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    _, writer = await asyncio.open_connection(HOST, client.port)
    writer.write(head[: client.chance.randrange(1, len(head))])
    await writer.drain()
    if client.chance.random() < 0.5:
        plug = writer.get_extra_info("socket")
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # resets, as a crash does
    writer.close()
    await writer.wait_closed()


@dataclass(frozen=True)
class Sort:
    """Clients of one kind.

    Attributes:
        pause_s: Between two visits of one, on the average.
    """

    visit: Callable[[Client], Awaitable[None]]
    num_clients: int
    pause_s: float


SORTS = (
    Sort(stream, 2, 5.0),
    Sort(chat, 1, 4.0),
    Sort(completion, 1, 4.0),
    Sort(embedding, 1, 1.5),
    Sort(rerank, 1, 1.5),
    Sort(documents, 1, 6.0),
    Sort(metrics, 1, 5.0),
    Sort(vanish, 1, 5.0),
    Sort(run_out_of_time, 1, 6.0),
    Sort(send_nonsense, 1, 1.0),
    Sort(break_off, 1, 1.0),
)
"""Together more than half of what two cores can do, and never all of it: nobody is refused."""


async def run_clients(url: str, seen: Seen, is_over: asyncio.Event, *, seed: int) -> None:
    """Let all of them come until it is over, and wait for their last answers."""
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S) as http, asyncio.TaskGroup() as group:
        for number, sort in enumerate(each for each in SORTS for _ in range(each.num_clients)):
            group.create_task(keep_coming(sort, Client(http, Prompts(seed + number), seen), is_over))


async def keep_coming(sort: Sort, client: Client, is_over: asyncio.Event) -> None:
    """Visit until it is over; whatever goes wrong is noted."""
    while not is_over.is_set():
        try:
            await sort.visit(client)
        except Exception as exc:  # whatever it was: a failure to be counted, not the end of half an hour
            client.seen.failures[f"{sort.visit.__name__}: {type(exc).__name__}: {exc}"[:500]] += 1
        try:
            await asyncio.wait_for(is_over.wait(), client.chance.uniform(0, 2 * sort.pause_s))
        except TimeoutError:
            continue


async def _stream(client: Client, body: Body) -> Answer:
    answer = await ask(client.port, Answer(body, due_s=time.perf_counter()))
    _require(not answer.error and answer.chunk_s, answer.error or "an answer without a word")
    return answer


async def _until_ingested(client: Client, path: str) -> None:
    while (status := (await client.get(path))["status"]) == "in_progress":  # noqa: ASYNC110 (HTTP has no event)
        await asyncio.sleep(POLL_S)
    _require(status == "completed", f"the document is {status}")


def _checked(response: httpx.Response) -> Any:
    _require(response.status_code == 200, f"{response.request.url.path}: {response.status_code} {response.text[:300]}")
    return response.json()


def _require(holds: object, what: object) -> None:
    if not holds:
        raise WrongAnswer(str(what)[:400])
