"""From what the clients of an encoder saw to figures. Pure functions; knows no server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from typing import TypeVar

from benchmarks.encoder_traffic import Reply
from benchmarks.figures import Figures, percentiles

ResultT = TypeVar("ResultT")


def run_timed(sending: Coroutine[None, None, ResultT]) -> tuple[ResultT, Figures]:
    """Run traffic to its end; near a `client_cpu_share` of 1 the client was the bottleneck."""
    started, cpu_started = time.perf_counter(), time.process_time()
    result = asyncio.run(sending)
    share = (time.process_time() - cpu_started) / (time.perf_counter() - started)
    return result, {"client_cpu_share": share}


def figures_of(replies: Sequence[Reply]) -> Figures:
    """Throughput and latencies of whole answers, from the first request to the last answer."""
    good = [reply for reply in replies if not reply.error]
    figures = {"completion_rate": len(good) / len(replies)}
    if not good:
        return figures
    wall_s = max(reply.done_s for reply in replies) - min(reply.due_s for reply in replies)
    return {
        **figures,
        "items_per_s": sum(reply.num_items for reply in good) / wall_s,
        "requests_per_s": len(good) / wall_s,
        **percentiles("latency", [reply.latency_s for reply in good], 50, 95, 99),
    }


def computed_items(replies: Sequence[Reply]) -> int:
    """Items that the server made a forward pass for, by its own count."""
    good = [reply for reply in replies if not reply.error]
    return sum(reply.num_items - int(reply.json["usage"]["cached_inputs"]) for reply in good)
