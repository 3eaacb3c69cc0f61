"""An HTTP client at the level of ASGI messages, for what a buffering client cannot see: order, silence, disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.types import ASGIApp, Message


class AsgiConnection:
    """One request to an app, sent at once; its answer is read message by message."""

    def __init__(self, app: ASGIApp, path: str, payload: Any, headers: Mapping[str, str] | None = None) -> None:
        self._incoming: asyncio.Queue[Message] = asyncio.Queue()
        self._outgoing: asyncio.Queue[Message] = asyncio.Queue()
        self._incoming.put_nowait({"type": "http.request", "body": orjson.dumps(payload), "more_body": False})
        self.done: asyncio.Future[None] = asyncio.ensure_future(
            app(_scope(path, headers or {}), self._incoming.get, self._outgoing.put)
        )

    def disconnect(self) -> None:
        self._incoming.put_nowait({"type": "http.disconnect"})

    async def read_status(self) -> int:
        message = await self._read()
        assert message["type"] == "http.response.start"
        return int(message["status"])

    async def read_chunk(self) -> bytes:
        message = await self._read()
        assert message["type"] == "http.response.body"
        return bytes(message["body"])

    @property
    def has_unread(self) -> bool:
        return not self._outgoing.empty()

    async def _read(self) -> Message:
        return await asyncio.wait_for(self._outgoing.get(), timeout=5)


def _scope(path: str, headers: Mapping[str, str]) -> dict[str, Any]:
    named = {"host": "test", "content-type": "application/json", **headers}
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in named.items()],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
    }
