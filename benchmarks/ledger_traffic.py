"""Clients that count for themselves: mixed requests, each under an id of its own, and what became of it."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import httpx

Ending = Literal["told", "refused", "failed", "cut"]
"""The client got an answer with its usage, or was refused without any work, or got an error that may have cost
something, or the connection broke."""

Body = dict[str, Any]

SCRIPT = "script"

SCRIPTED_MODEL: Body = {
    "id": SCRIPT,
    "kind": "chat",
    "backend": "script",
    "prices": {"input": 1.0, "output": 4.0},
    "script": [
        {"match": "^crash", "text": "half an answer", "delay_ms": 20, "error": {"code": "worker_crashed"}},
        {"match": "^fail", "text": "half an answer", "error": {"code": "internal_error"}},
        {"match": "^slow", "text": " ".join(["word"] * 60), "delay_ms": 40},
        {"text": "you said {input}"},
    ],
}


@dataclass
class Asked:
    """One request and what the client knows of it.

    Attributes:
        prompt_tokens, completion_tokens: As it was told; None where it was not.
        num_pieces: Of a stream: pieces of the answer that arrived, each of which is a token of a scripted model.
    """

    id: str
    path: str
    ending: Ending = "cut"
    prompt_tokens: int | None = None
    completion_tokens: int = 0
    num_pieces: int = 0


class Traffic:
    """Sends requests until their number is reached; the server may go and come back meanwhile.

    Args:
        models: By kind, besides the scripted one; a kind that is missing is not asked.
    """

    def __init__(self, models: dict[str, str], *, num_requests: int, seed: int) -> None:
        self._models = models
        self._random = random.Random(seed)
        self._numbers = iter(range(num_requests))
        self.is_up = asyncio.Event()
        self.url = ""
        self.asked: list[Asked] = []
        self._answered = asyncio.Condition()

    async def run(self, *, num_clients: int) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(num_clients):
                group.create_task(self._client())

    async def reach(self, num_requests: int) -> None:
        """Wait until so many are over."""
        async with self._answered:
            await self._answered.wait_for(lambda: len(self.asked) >= num_requests)

    async def _client(self) -> None:
        async with httpx.AsyncClient(timeout=180) as http:
            for number in self._numbers:
                await self.is_up.wait()
                asked = await self._ask(http, number)
                self.asked.append(asked)
                async with self._answered:
                    self._answered.notify_all()
                if asked.ending == "cut":
                    await asyncio.sleep(0.05)  # the server is gone; whoever starts it says when it is back

    async def _ask(self, http: httpx.AsyncClient, number: int) -> Asked:
        path, body = self._request(number)
        asked = Asked(f"bench-{number}", path)
        headers = {"x-request-id": asked.id, "x-hearth-sender": f"sender-{number % 7}"}
        try:
            async with http.stream("POST", f"{self.url}{path}", json=body, headers=headers) as response:
                if body.get("stream"):
                    await _read_stream(asked, response)
                else:
                    _read_whole(asked, response.status_code, await response.aread())
        except httpx.HTTPError:
            asked.ending = "cut"
        return asked

    def _request(self, number: int) -> tuple[str, Body]:
        """Some come to harm by themselves: the script fails, or there is no such model."""
        able = [each for each in _MIX if each.kind is None or each.kind in self._models]
        [chosen] = self._random.choices(able, [each.weight for each in able])
        word = f"{self._random.choice(_WORDS)} {number}"
        return chosen.path, chosen.body(self._models.get(chosen.kind or "", SCRIPT), word, number)

    def crash_script(self) -> tuple[str, Body]:
        return "/v1/chat/completions", _chat(SCRIPT, "crash")


_WORDS = ("bread", "flour", "water", "salt", "yeast", "oven")
_STREAM: Body = {"stream": True, "stream_options": {"include_usage": True}}


def _chat(model: str, text: str, **more: object) -> Body:
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


@dataclass(frozen=True)
class _Sort:
    """A sort of request: how many of a hundred, for a model of which kind (None: the scripted one), and its body."""

    weight: int
    path: str
    body: Callable[[str, str, int], Body]
    kind: str | None = None


_CHAT = "/v1/chat/completions"
_MIX = (
    _Sort(20, _CHAT, lambda model, word, number: _chat(model, word, n=3 if number % 3 == 0 else 1)),
    _Sort(20, _CHAT, lambda model, word, _: _chat(model, word, **_STREAM)),
    _Sort(10, "/v1/completions", lambda model, word, _: {"model": model, "prompt": [word, f"{word} again"], "n": 2}),
    _Sort(5, "/v1/messages", lambda model, word, _: _chat(model, word, max_tokens=100)),
    _Sort(5, _CHAT, lambda model, word, _: _chat(model, f"slow {word}", **_STREAM)),
    _Sort(3, _CHAT, lambda model, word, number: _chat(model, f"fail {word}", stream=number % 2 == 0)),
    _Sort(2, _CHAT, lambda _, word, __: _chat("nobody", word)),
    _Sort(10, _CHAT, lambda model, word, _: _chat(model, word, max_tokens=8, **_STREAM), "chat"),
    _Sort(15, "/v1/embeddings", lambda model, word, n: {"model": model, "input": [word] * (1 + n % 5)}, "embedding"),
    _Sort(
        *(10, "/v1/rerank"),
        lambda model, word, n: {"model": model, "query": word, "documents": [f"{word} {i}" for i in range(1 + n % 4)]},
        "rerank",
    ),
)


def _read_whole(asked: Asked, status: int, content: bytes) -> None:
    body = json.loads(content)
    if status == 200:
        asked.ending = "told"
        asked.prompt_tokens, asked.completion_tokens = _usage_of(body["usage"])
    else:
        asked.ending = "refused" if status in (400, 404) else "failed"


async def _read_stream(asked: Asked, response: httpx.Response) -> None:
    if response.status_code != 200:
        _read_whole(asked, response.status_code, await response.aread())
        return
    async for line in response.aiter_lines():
        for event in _event_of(line):
            if "error" in event:
                asked.ending = "failed"
            elif event.get("usage"):
                asked.ending = "told"
                asked.prompt_tokens, asked.completion_tokens = _usage_of(event["usage"])
            asked.num_pieces += sum(bool(choice["delta"].get("content")) for choice in event.get("choices", ()))


def _event_of(line: str) -> Iterator[Body]:
    if line.startswith("data: {"):
        yield json.loads(line[6:])


def _usage_of(usage: Body) -> tuple[int, int]:
    """In the words of OpenAI or Anthropic, who counts what was cached apart."""
    if "input_tokens" in usage:
        return usage["input_tokens"] + usage.get("cache_read_input_tokens", 0), usage["output_tokens"]
    return usage["prompt_tokens"], usage.get("completion_tokens", 0)
