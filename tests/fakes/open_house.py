"""An application that tells what it was asked, behind the server's own protocol on real sockets, in this process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from server.cli.http_protocol import ConnectionBounds, HttpProtocol

READ_S = 5.0


@dataclass
class House:
    """A server in this process, and what its application has seen.

    Attributes:
        seen: Path and body of each request whose body came whole.
        gone: Paths of requests whose client left, or was sent away.
        release: Requests to `/held` are answered when it is set.
        dropped: Set when a request to `/endless` was dropped.
    """

    port: int
    seen: list[tuple[str, bytes]] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    release: asyncio.Event = field(default_factory=asyncio.Event)
    has_begun: asyncio.Event = field(default_factory=asyncio.Event)
    dropped: asyncio.Event = field(default_factory=asyncio.Event)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port, limit=2**20)

    async def exchange(self, sent: bytes) -> bytes:
        """Everything that comes until the server ends the connection."""
        reader, writer = await self.connect()
        writer.write(sent)
        try:
            return await asyncio.wait_for(reader.read(-1), READ_S)
        finally:
            writer.close()

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        path, body, more = scope["path"], b"", True
        self.has_begun.set()
        if path == "/early":
            await _respond(send, b"early", status=413)
            return
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.gone.append(path)
                return
            body += message["body"]
            more = message["more_body"]
        self.seen.append((path, body))
        if path == "/held":
            await self.release.wait()
        if path == "/endless":
            await self._send_for_ever(receive, send)
            return
        await _respond(send, f"{path} {len(body)}".encode())

    async def _send_for_ever(self, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        leaving = asyncio.create_task(receive())
        while not leaving.done():
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
            await asyncio.sleep(0)
        self.dropped.set()


async def _respond(send: Callable[[Any], Awaitable[None]], body: bytes, *, status: int = 200) -> None:
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def open_house(*, keep_alive_s: int = 5, **bounds: Any) -> AsyncIterator[House]:
    house = House(port=0)
    config = uvicorn.Config(
        house.app,
        http="httptools",
        ws="none",
        log_config=None,
        lifespan="off",
        interface="asgi3",
        timeout_keep_alive=keep_alive_s,
    )
    config.load()
    state = ServerState()
    limits = ConnectionBounds(
        **{
            "receive_timeout_s": 30.0,
            "max_connections": 10,
            "upload_paths": ("/upload",),
            "always_open": ("/health",),
            **bounds,
        }
    )
    server = await asyncio.get_running_loop().create_server(
        lambda: HttpProtocol(config, state, {}, bounds=limits), "127.0.0.1", 0
    )
    house.port = server.sockets[0].getsockname()[1]
    try:
        yield house
    finally:
        server.close()
        for connection in list(state.connections):
            connection.transport.abort()
        await asyncio.sleep(0.01)  # `connection_lost` is on its way, here and at the clients
        await asyncio.gather(*state.tasks, return_exceptions=True)


def error_of(answer: bytes) -> Any:
    return json.loads(answer.rpartition(b"\r\n\r\n")[2])["error"]
