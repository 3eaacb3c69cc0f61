"""The load generator's figures of encoder benchmarks, with a clock on the client. Knows no server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from typing import TypeVar

from server.loadgen.exchange import Reply
from server.loadgen.figures import Figures, Window, reply_figures

ResultT = TypeVar("ResultT")


def run_timed(sending: Coroutine[None, None, ResultT]) -> tuple[ResultT, Figures]:
    """Run traffic to its end; near a `client_cpu_share` of 1 the client was the bottleneck."""
    started, cpu_started = time.perf_counter(), time.process_time()
    result = asyncio.run(sending)
    share = (time.process_time() - cpu_started) / (time.perf_counter() - started)
    return result, {"client_cpu_share": share}


def figures_of(replies: Sequence[Reply]) -> Figures:
    """Throughput and latencies of whole answers, from the first request to the last answer."""
    wall_s = max(reply.done_s for reply in replies) - min(reply.due_s for reply in replies)
    return reply_figures(replies, Window.of_all(wall_s))


def computed_items(replies: Sequence[Reply]) -> int:
    """Items that the server made a forward pass for, by its own count."""
    good = [reply for reply in replies if not reply.error]
    return sum(reply.num_items - int(reply.json["usage"]["cached_inputs"]) for reply in good)
