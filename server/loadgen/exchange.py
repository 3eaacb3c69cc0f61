"""A request that is answered in one piece, as embeddings and rerank are."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from server.loadgen.connection import BrokenAnswer, Connection

_ERROR_BYTES = 500


@dataclass(frozen=True)
class Ask:
    """One request.

    Attributes:
        path: Below the target's base.
        num_items: Texts or documents in it.
    """

    path: str
    body: Mapping[str, object]
    num_items: int


@dataclass
class Reply:
    """What became of one request.

    Attributes:
        due_s: When it was to be sent; latencies count from here.
        content: The answer's body; empty where it failed.
        error: Why it failed; empty when it ended well.
        status: HTTP's; 0 where there is none.
        num_tokens: Of the inputs, as the server counts them; 0 where nobody looked.
    """

    num_items: int
    due_s: float
    done_s: float = 0.0
    content: bytes = field(default=b"", repr=False)
    error: str = ""
    status: int = 0
    num_tokens: int = 0

    @property
    def latency_s(self) -> float:
        return self.done_s - self.due_s

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.content)


async def send(connection: Connection, ask: Ask, due_s: float | None = None) -> Reply:
    """Send a request and wait for its answer. Never raises: failures are in `error`."""
    reply = Reply(ask.num_items, time.perf_counter() if due_s is None else due_s)
    reader = _WholeReader()
    try:
        await connection.post(ask.path, msgspec.json.encode(ask.body), reader)
        if reader.status == 200:
            reply.content = bytes(reader.content)
        else:
            reply.error = f"status {reader.status}: {reader.content[:_ERROR_BYTES].decode(errors='replace')}"
    except (BrokenAnswer, TimeoutError) as exc:
        reply.error = str(exc)
    except OSError as exc:
        reply.error = f"{type(exc).__name__}: {exc}"
    reply.status, reply.done_s = reader.status, time.perf_counter()
    return reply


class _WholeReader:
    def __init__(self) -> None:
        self.status = 0
        self.content = bytearray()

    def on_sent(self, at_s: float) -> None:
        """Nothing is counted from here: latencies count from when a request was due."""

    def on_status(self, status: int, _retry_after_s: float | None) -> None:
        self.status = status

    def on_body(self, data: bytes, at_s: float) -> None:
        self.content += data
