"""A streamed chat completion, as its client sees it."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field
from typing import Any

import msgspec

from server.loadgen.connection import BrokenAnswer, Connection

_ERROR_BYTES = 2000
"""Of a refusal, kept for people."""

Body = dict[str, object]
Event = dict[str, Any]


@dataclass
class Answer:
    """What one streamed request experienced.

    Attributes:
        body: What was asked.
        due_s: When it was to be sent. Latencies count from here, so that a client that is late helps nobody.
        sent_s: When it was written.
        chunk_s: When each chunk with text arrived, of an answer or of the reasoning before it.
        num_tokens: Completion tokens, as the server counts them; 0 where it does not, as the counts below.
        text: The answer, without reasoning.
        error: Why the request failed; empty when it ended well.
        status: HTTP's; 0 before there is one.
        retry_after_s: When the server wants to be asked again, where it says so.
    """

    body: Body
    due_s: float
    sent_s: float = 0.0
    chunk_s: list[float] = field(default_factory=list)
    done_s: float = 0.0
    num_tokens: int = 0
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    text: str = ""
    error: str = ""
    status: int = 0
    retry_after_s: float | None = None

    @property
    def ttft_s(self) -> float:
        return self.chunk_s[0] - self.due_s

    @property
    def latency_s(self) -> float:
        return self.done_s - self.due_s

    @property
    def gaps_s(self) -> list[float]:
        return [after - before for before, after in itertools.pairwise(self.chunk_s)]

    def take(self, event: Event, arrived_s: float) -> None:
        """Note what one event of the stream says. Whoever knows more of a server's events may extend this."""
        if "error" in event:
            self.error = msgspec.json.encode(event["error"]).decode()
            return
        if choices := event.get("choices"):
            self._take_delta(choices[0]["delta"], arrived_s)
        if usage := event.get("usage"):
            self.num_tokens = usage["completion_tokens"]
            self.num_prompt_tokens = usage["prompt_tokens"]
            self.num_cached_tokens = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0

    def _take_delta(self, delta: Event, arrived_s: float) -> None:
        content = delta.get("content")
        if content or delta.get("reasoning_content") or delta.get("reasoning"):
            self.chunk_s.append(arrived_s)
        self.text += content or ""


async def ask(connection: Connection, answer: Answer) -> Answer:
    """Send `answer.body` as a streamed chat completion; fill the answer as it comes, and return it.

    Never raises: failures are in `error`. When cancelled, the answer holds what had come until then.
    """
    reader = _StreamReader(answer)
    body = {**answer.body, "stream": True, "stream_options": {"include_usage": True}}
    try:
        await connection.post("/chat/completions", msgspec.json.encode(body), reader)
        reader.end()
    except (BrokenAnswer, TimeoutError) as exc:
        answer.error = answer.error or str(exc)
    except OSError as exc:
        answer.error = answer.error or f"{type(exc).__name__}: {exc}"
    answer.done_s = time.perf_counter()
    return answer


class _StreamReader:
    """Cuts server-sent events out of a body, wherever it was cut on its way."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._rest = b""
        self._is_done = False

    def on_sent(self, at_s: float) -> None:
        self._answer.sent_s = at_s

    def on_status(self, status: int, retry_after_s: float | None) -> None:
        self._answer.status, self._answer.retry_after_s = status, retry_after_s

    def on_body(self, data: bytes, at_s: float) -> None:
        if self._answer.status != 200:
            self._rest = (self._rest + data)[:_ERROR_BYTES]
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._take_line(line.rstrip(b"\r"), at_s)

    def end(self) -> None:
        """The body is complete: is the answer?"""
        if self._answer.status != 200:
            self._answer.error = f"status {self._answer.status}: {self._rest.decode(errors='replace')}"
        elif not self._is_done and not self._answer.error:
            self._answer.error = "the stream ended without [DONE]"

    def _take_line(self, line: bytes, at_s: float) -> None:
        if line.startswith(b"error:"):  # llama-server's way
            self._answer.error = line.decode(errors="replace")
        if not line.startswith(b"data:"):
            return
        data = line[5:].strip()
        if data == b"[DONE]":
            self._is_done = True
            return
        try:
            self._answer.take(msgspec.json.decode(data), at_s)
        except (msgspec.DecodeError, LookupError, TypeError, AttributeError) as exc:
            self._answer.error = self._answer.error or f"an event is not a chunk of a chat: {type(exc).__name__}: {exc}"
