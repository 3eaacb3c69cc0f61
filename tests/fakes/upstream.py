"""An OpenAI-compatible server of a few lines, on a port of its own: good, slow, broken or odd, as a test wants it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

HANG = b"hang"
"""In an answer: say nothing more, and keep the connection open."""

CLOSE = b"close"
"""In an answer: close the connection."""

USAGE = {"completion_tokens": 2, "prompt_tokens": 3, "prompt_tokens_details": {"cached_tokens": 1}}


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: Any
    connection: int


Answers = Callable[[Request], Iterable[bytes]]
"""The parts of an answer, which are sent one by one."""


@dataclass
class Upstream:
    """A running server.

    Attributes:
        requests: All that came, in order.
    """

    port: int = 0
    requests: list[Request] = field(default_factory=list)
    num_connections: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"


# ---- answers


def plain(status: str, content: bytes = b"{}") -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(content)}\r\n\r\n".encode() + content


def as_json(answer: object) -> bytes:
    return plain("200 OK", json.dumps(answer).encode())


def events(*texts: str, usage: object = USAGE, is_done: bool = True) -> bytes:
    """A stream of a chat, as server-sent events."""
    chunks = [{"choices": [{"delta": {"content": text}}]} for text in texts]
    chunks += [{"choices": [], "usage": usage}] if usage else []
    return "".join([*(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks), "data: [DONE]\n\n" * is_done]).encode()


def until_closed(content: bytes) -> list[bytes]:
    return [b"HTTP/1.1 200 OK\r\n\r\n", content, CLOSE]


def chunked(content: bytes, *, size: int = 1 << 16) -> list[bytes]:
    """Cut anywhere, as proxies do it."""
    parts = [content[start : start + size] for start in range(0, len(content), size)]
    frames = [f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in parts]
    return [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", *frames, b"0\r\n\r\n"]


def an_api(request: Request) -> Iterable[bytes]:
    """What a good server answers. A word of a request is a token, and a chat's template adds ten."""
    if request.path == "/v1/models":
        return [as_json({"data": [{"id": "a-model"}]})]
    if request.path == "/v1/embeddings":
        rows = [{"index": index, "embedding": "AAAA"} for index, _ in enumerate(request.body["input"])]
        num_tokens = sum(len(text.split()) for text in request.body["input"])
        return [as_json({"data": rows, "usage": {"prompt_tokens": num_tokens, "total_tokens": num_tokens}})]
    if request.path == "/v1/rerank":
        num_tokens = sum(len(text.split()) for text in request.body["documents"])
        return [as_json({"results": [], "usage": {"total_tokens": num_tokens}})]
    if request.path == "/v1/chat/completions":
        num_words = sum(len(message["content"].split()) for message in request.body["messages"])
        usage = {"prompt_tokens": 10 + num_words, "completion_tokens": request.body["max_tokens"]}
        return chunked(events(*("a " for _ in range(request.body["max_tokens"])), usage=usage))
    return [plain("404 Not Found")]


# ---- the server


@asynccontextmanager
async def upstream(answers: Answers) -> AsyncIterator[Upstream]:
    """Serve in this loop until the caller is done; what hangs then is let go."""
    running = Upstream()
    handlers: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        handlers.add(task)
        running.num_connections += 1
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            await _converse(running, answers, reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    running.port = server.sockets[0].getsockname()[1]
    try:
        yield running
    finally:
        server.close()
        for task in handlers:
            task.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)
        await server.wait_closed()


@contextmanager
def upstream_in_thread(answers: Answers) -> Iterator[Upstream]:
    """The same for callers that have no loop, or want one of their own."""
    is_ready, is_over = threading.Event(), threading.Event()
    found: list[Upstream] = []

    async def serve() -> None:
        async with upstream(answers) as running:
            found.append(running)
            is_ready.set()
            await asyncio.to_thread(is_over.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="upstream")
    thread.start()
    try:
        assert is_ready.wait(10)
        yield found[0]
    finally:
        is_over.set()
        thread.join(10)


async def _converse(
    running: Upstream, answers: Answers, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    number = running.num_connections
    while request := await _read(reader, number):
        running.requests.append(request)
        for part in answers(request):
            if part is HANG:
                await asyncio.get_running_loop().create_future()
            if part is CLOSE:
                return
            writer.write(part)
            await writer.drain()
        if request.headers.get("connection") == "close":
            return


async def _read(reader: asyncio.StreamReader, connection: int) -> Request | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
    content = await reader.readexactly(int(headers.get("content-length", 0)))
    method, path, _ = first.split()
    return Request(method, path, headers, json.loads(content) if content else None, connection)
