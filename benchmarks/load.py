"""A load generator for OpenAI-compatible chat streams: raw asyncio sockets, so that the client is never the bottleneck.

Speaks just enough HTTP/1.1 for a streamed POST to a server on this machine. Times are `time.perf_counter()` seconds.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

Body = dict[str, object]


@dataclass
class Answer:
    """What one streamed request experienced.

    Attributes:
        sent_s: When the request was written.
        chunk_s: When each chunk with text arrived.
        num_tokens: Completion tokens, as the server counts them.
        error: Why the request failed; empty when it ended well.
    """

    sent_s: float
    chunk_s: list[float] = field(default_factory=list)
    done_s: float = 0.0
    num_tokens: int = 0
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    text: str = ""
    error: str = ""

    @property
    def ttft_s(self) -> float:
        return self.chunk_s[0] - self.sent_s

    @property
    def gaps_s(self) -> list[float]:
        return [after - before for before, after in zip(self.chunk_s, self.chunk_s[1:], strict=False)]


async def stream_chat(host: str, port: int, body: Body) -> Answer:
    """Send one streamed chat completion and read it to its end. Never raises: failures are in `error`."""
    answer = Answer(sent_s=time.perf_counter())
    try:
        reader, writer = await asyncio.open_connection(host, port, limit=2**22)
        try:
            writer.write(_request(host, body))
            await _read_stream(reader, answer)
        finally:
            writer.close()
    except (OSError, asyncio.IncompleteReadError, ValueError, LookupError, TypeError) as exc:
        answer.error = answer.error or f"{type(exc).__name__}: {exc}"
    answer.done_s = time.perf_counter()
    return answer


async def closed_loop(
    ask: Callable[[Body], Awaitable[Answer]], bodies: Sequence[Body], *, num_clients: int
) -> list[Answer]:
    """`num_clients` clients send all the bodies, each its next one when its last is answered."""
    waiting = iter(bodies)
    answers: list[Answer] = []

    async def client() -> None:
        answers.extend([await ask(body) for body in waiting])

    await asyncio.gather(*(client() for _ in range(num_clients)))
    return answers


def _request(host: str, body: Body) -> bytes:
    payload = json.dumps({**body, "stream": True, "stream_options": {"include_usage": True}}).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(payload)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + payload


async def _read_stream(reader: asyncio.StreamReader, answer: Answer) -> None:
    status = int((await reader.readline()).split()[1])
    while (await reader.readline()).strip():
        pass
    if status != 200:
        answer.error = f"status {status}: {(await reader.read(2000)).decode(errors='replace')}"
        return
    is_done = False
    while line := await reader.readline():  # chunk sizes and blank lines do not begin with "data: "
        if line.startswith(b"data: [DONE]"):
            is_done = True
        elif line.startswith(b"data: "):
            _take(json.loads(line[6:]), answer)
    if not is_done and not answer.error:
        answer.error = "the stream ended without [DONE]"


def _take(event: dict[str, object], answer: Answer) -> None:
    if "error" in event:
        answer.error = json.dumps(event["error"])
        return
    choices = event.get("choices")
    if isinstance(choices, list) and choices:
        text = choices[0]["delta"].get("content")
        if text:
            answer.chunk_s.append(time.perf_counter())
            answer.text += text
    usage = event.get("usage")
    if isinstance(usage, dict):
        answer.num_tokens = usage["completion_tokens"]
        answer.num_prompt_tokens = usage["prompt_tokens"]
        answer.num_cached_tokens = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
