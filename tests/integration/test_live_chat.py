"""Many chats at a time, several prompts in one request, and chats that nobody waits for any more."""

from __future__ import annotations

import asyncio
import time

import httpx
import psutil
import pytest

from benchmarks.server_process import ServerProcess
from tests.integration.live_models import CHAT, ask

pytestmark = pytest.mark.integration

NUM_STREAMS = 16
DEADLINE_S = 20.0


async def test_sixteen_streams_run_together_not_one_after_the_other(live_server: ServerProcess) -> None:
    arrivals: list[tuple[str, int]] = []

    async def stream(client: httpx.AsyncClient, number: int) -> None:
        # Long enough that the first is far from its end when the last has connected, on a busy machine too.
        body = ask(f"Write about the number {number}.", CHAT, stream=True, max_tokens=96, ignore_eos=True)
        async with client.stream("POST", "/v1/chat/completions", json=body) as response:
            async for line in response.aiter_lines():
                if '"content":"' in line and '"role"' not in line:
                    arrivals.append(("piece", number))
                elif line == "data: [DONE]":
                    arrivals.append(("end", number))

    async with httpx.AsyncClient(base_url=live_server.url, timeout=120) as client:
        await asyncio.gather(*(stream(client, number) for number in range(NUM_STREAMS)))

    first_end = next(place for place, (what, _) in enumerate(arrivals) if what == "end")
    assert {number for what, number in arrivals if what == "end"} == set(range(NUM_STREAMS))
    assert {number for _, number in arrivals[:first_end]} == set(range(NUM_STREAMS))


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "json"])
async def test_one_prompt_too_long_refuses_all_of_a_request(live_server: ServerProcess, stream: bool) -> None:
    body = {"model": CHAT, "prompt": ["Once", "word " * 9000], "stream": stream, "max_tokens": 4}

    async with httpx.AsyncClient(base_url=live_server.url, timeout=60) as client:
        response = await client.post("/v1/completions", json=body)

    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "json"])
async def test_a_client_that_leaves_stops_the_work(live_server: ServerProcess, stream: bool) -> None:
    """A worker's CPU time is the one thing that tells from outside whether it still works."""
    worker = psutil.Process(live_server.worker_pids()[CHAT])
    body = ask("Tell a long story.", CHAT, stream=stream, max_tokens=8000, ignore_eos=True)

    async with httpx.AsyncClient(base_url=live_server.url, timeout=60) as client:
        request = asyncio.create_task(client.post("/v1/chat/completions", json=body))
        await _until_busy(worker)
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)

    await _until_idle(worker)


async def _until_busy(worker: psutil.Process) -> None:
    at_first = _cpu_s(worker)
    async with asyncio.timeout(DEADLINE_S):
        while _cpu_s(worker) < at_first + 0.5:  # noqa: ASYNC110 (no event tells of it)
            await asyncio.sleep(0.02)


async def _until_idle(worker: psutil.Process) -> None:
    """Wait for a second in which it used next to no CPU time; the story would have gone on for a minute."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        before = _cpu_s(worker)
        await asyncio.sleep(1)
        if _cpu_s(worker) - before < 0.1:
            return
        assert time.monotonic() < deadline, "the worker still computes"


def _cpu_s(worker: psutil.Process) -> float:
    times = worker.cpu_times()
    return float(times.user + times.system)
