"""A load generator for OpenAI-compatible chat streams: raw asyncio sockets, so that the client is never the bottleneck.

Speaks just enough HTTP/1.1 for a streamed POST to a server on this machine. It runs in a process of its own: that of
the benchmark, while all servers are others. Times are `time.perf_counter()` seconds.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

HOST = "127.0.0.1"
TIMEOUT_S = 300.0
"""After so long a request counts as failed: a server that hangs must not hang the benchmark."""

_MAX_LINE_BYTES = 1 << 20
"""Of a stream: a grounded answer tells all its sources in one line."""

Body = dict[str, object]


@dataclass
class Answer:
    """What one streamed request experienced.

    Attributes:
        body: What was asked.
        due_s: When it was to be sent. Latencies count from here, so that a client that is late helps nobody.
        headers: What is sent with it.
        sent_s: When it was written.
        chunk_s: When each chunk with text arrived.
        num_tokens: Completion tokens, as the server counts them.
        num_sources: Of a grounded answer, which Hearth tells before its first word.
        finding_s: What the server says that finding them and writing the prompt took.
        status: Of the answer; 0 if none came.
        retry_after_s: When the server wants to be asked again, where it says so.
        error: Why the request failed; empty when it ended well.
    """

    body: Body
    due_s: float
    headers: Mapping[str, str] = field(default_factory=dict)
    sent_s: float = 0.0
    chunk_s: list[float] = field(default_factory=list)
    done_s: float = 0.0
    num_tokens: int = 0
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_sources: int = 0
    finding_s: float = 0.0
    text: str = ""
    status: int = 0
    retry_after_s: float | None = None
    error: str = ""

    @property
    def ttft_s(self) -> float:
        return self.chunk_s[0] - self.due_s

    @property
    def latency_s(self) -> float:
        return self.done_s - self.due_s

    @property
    def gaps_s(self) -> list[float]:
        return [after - before for before, after in itertools.pairwise(self.chunk_s)]


@dataclass(frozen=True)
class Traffic:
    """What a load experienced as a whole.

    Attributes:
        client_cpu_share: CPU time of this process by wall time; near 1 means that the client was the bottleneck.
    """

    answers: list[Answer]
    wall_s: float
    client_cpu_share: float


def run_traffic(sending: Coroutine[None, None, list[Answer]]) -> Traffic:
    """Run a load to its end, with a clock on it."""
    started, cpu_started = time.perf_counter(), time.process_time()
    answers = asyncio.run(sending)
    wall_s = time.perf_counter() - started
    return Traffic(answers, wall_s, (time.process_time() - cpu_started) / wall_s)


async def closed_loop(port: int, bodies: Iterable[Body], *, num_clients: int) -> list[Answer]:
    """`num_clients` clients send all the bodies, each its next one when its last is answered."""
    waiting = iter(bodies)
    answers: list[Answer] = []

    async def client() -> None:
        for body in waiting:
            answers.append(await ask(port, Answer(body, time.perf_counter())))  # noqa: PERF401 (the clients take turns)

    await asyncio.gather(*(client() for _ in range(num_clients)))
    return answers


async def open_loop(
    port: int, bodies: Sequence[Body], arrivals_s: Sequence[float], *, headers: Mapping[str, str] | None = None
) -> list[Answer]:
    """Send each body at its time after the start, however many are being answered: users do not wait for each other."""
    started = time.perf_counter()

    async def client(body: Body, arrival_s: float) -> Answer:
        due_s = started + arrival_s
        await asyncio.sleep(due_s - time.perf_counter())
        return await ask(port, Answer(body, due_s, headers or {}))

    return await asyncio.gather(*(client(*each) for each in zip(bodies, arrivals_s, strict=True)))


def poisson_arrivals(count: int, rate: float, *, seed: int) -> list[float]:
    """Seconds after the start of `count` requests that come independently of each other, `rate` a second."""
    pauses = random.Random(seed)
    return list(itertools.accumulate(pauses.expovariate(rate) for _ in range(count)))


async def ask(port: int, answer: Answer) -> Answer:
    """Send `answer.body` as a streamed chat completion; fill the answer as it comes, and return it.

    Never raises: failures are in `error`. When cancelled, the answer holds what had come until then.
    """
    try:
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_connection(HOST, port, limit=_MAX_LINE_BYTES)
            try:
                writer.write(_request(answer))
                answer.sent_s = time.perf_counter()
                await _read_stream(reader, answer)
            finally:
                writer.close()
    except TimeoutError:
        answer.error = f"not answered within {TIMEOUT_S:g} s"
    except (OSError, ValueError, LookupError, TypeError) as exc:
        answer.error = answer.error or f"{type(exc).__name__}: {exc}"
    answer.done_s = time.perf_counter()
    return answer


def _request(answer: Answer) -> bytes:
    payload = json.dumps({**answer.body, "stream": True, "stream_options": {"include_usage": True}}).encode()
    more = "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items())
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n{more}"
        f"Content-Length: {len(payload)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + payload


async def _read_stream(reader: asyncio.StreamReader, answer: Answer) -> None:
    status_line = await reader.readline()
    if not status_line:
        answer.error = "the server closed the connection without an answer"
        return
    answer.status = int(status_line.split()[1])
    while line := (await reader.readline()).strip():
        name, _, value = line.partition(b":")
        if name.lower() == b"retry-after":
            answer.retry_after_s = float(value)
    if answer.status != 200:
        answer.error = f"status {answer.status}: {(await reader.read(2000)).decode(errors='replace')}"
        return
    is_done = False
    while line := await reader.readline():  # chunk sizes and blank lines do not begin with "data: "
        if line.startswith(b"data: [DONE]"):
            is_done = True
        elif line.startswith(b"data: "):
            _take(json.loads(line[6:]), answer, time.perf_counter())
        elif line.startswith(b"error: "):  # llama-server's way
            answer.error = line.decode(errors="replace").strip()
    if not is_done and not answer.error:
        answer.error = "the stream ended without [DONE]"


def _take(event: dict[str, object], answer: Answer, arrived_s: float) -> None:
    if "error" in event:
        answer.error = json.dumps(event["error"])
        return
    choices = event.get("choices")
    if isinstance(choices, list) and choices:
        delta = choices[0]["delta"]
        if sourced := delta.get("x", {}).get("timings_ms"):
            answer.num_sources, answer.finding_s = len(delta["x"]["sources"]), sourced["total"] / 1000
        text = delta.get("content")
        if text:
            answer.chunk_s.append(arrived_s)
            answer.text += text
    usage = event.get("usage")
    if isinstance(usage, dict):
        answer.num_tokens = usage["completion_tokens"]
        answer.num_prompt_tokens = usage["prompt_tokens"]
        answer.num_cached_tokens = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
