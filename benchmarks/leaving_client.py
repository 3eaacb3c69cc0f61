"""A client that leaves: one connection with one request, of whose answer it counts what comes, until it is closed."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
from typing import Any, Self
from urllib.parse import urlsplit

PIECE = re.compile(rb'"delta":\{[^{}]*"content":"[^"]')
"""A piece of an answer, in a stream; each is a token at least."""

ENDING = re.compile(rb'"finish_reason":"')
HEAD = re.compile(rb"HTTP/1\.1 \d")

_BOUNDARY = "it-ends-here"


class LeavingClient:
    """Sends a request under an id of its own.

    Attributes:
        request_id: Its `x-request-id`.
        received: All that has come.
    """

    def __init__(self, url: str, request_id: str) -> None:
        self._address = urlsplit(url)
        self.request_id = request_id
        self.received = bytearray()

    async def ask(self, path: str, body: dict[str, Any], *, share: float = 1.0) -> Self:
        """Send a JSON body, or the first `share` of it."""
        return await self._send(path, "application/json", json.dumps(body).encode(), share)

    async def upload(self, content: bytes, *, share: float) -> Self:
        """Send the first `share` of a file."""
        head = f'--{_BOUNDARY}\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nassistants\r\n'
        head += f'--{_BOUNDARY}\r\ncontent-disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
        body = head.encode() + content + f"\r\n--{_BOUNDARY}--\r\n".encode()
        return await self._send("/v1/files", f"multipart/form-data; boundary={_BOUNDARY}", body, share)

    async def read_until(self, pattern: re.Pattern[bytes], times: int = 1) -> None:
        """Read until it has come so often.

        Raises:
            ConnectionError: The answer ended before.
        """
        while len(pattern.findall(self.received)) < times:
            data = await self._reader.read(65536)
            if not data:
                raise ConnectionError(f"{self.request_id}: the answer ended with {bytes(self.received[-300:])!r}")
            self.received += data

    @property
    def num_pieces(self) -> int:
        return len(PIECE.findall(self.received))

    def leave(self, *, abruptly: bool) -> None:
        """Close the connection, with a reset or in good order."""
        if abruptly:
            plug = self._writer.get_extra_info("socket")
            plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.close()

    async def _send(self, path: str, media_type: str, body: bytes, share: float) -> Self:
        assert self._address.hostname
        self._reader, self._writer = await asyncio.open_connection(self._address.hostname, self._address.port)
        head = f"POST {path} HTTP/1.1\r\nhost: {self._address.netloc}\r\ncontent-type: {media_type}\r\n"
        head += f"content-length: {len(body)}\r\nx-request-id: {self.request_id}\r\n\r\n"
        self._writer.write(head.encode() + body[: int(len(body) * share)])
        await self._writer.drain()
        return self
