"""How late the event loop is."""

from __future__ import annotations

import asyncio
import time

from server.telemetry.loop_lag import watch_loop_lag


async def test_a_loop_that_is_held_up_is_seen_to_be_late() -> None:
    seen: asyncio.Queue[float] = asyncio.Queue()
    watching = asyncio.create_task(watch_loop_lag(seen.put_nowait, interval_s=0.001))
    await asyncio.wait_for(seen.get(), timeout=5)

    time.sleep(0.05)  # noqa: ASYNC251  # this is the point
    late_s = max([await asyncio.wait_for(seen.get(), timeout=5) for _ in range(2)])
    watching.cancel()

    assert late_s >= 0.04
