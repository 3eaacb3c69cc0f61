"""Tells how late an event loop is: whatever holds it up, all streams feel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NoReturn

INTERVAL_S = 0.05


async def watch_loop_lag(observe: Callable[[float], None], *, interval_s: float = INTERVAL_S) -> NoReturn:
    """Call `observe` with the seconds by which each of many short sleeps was too long."""
    loop = asyncio.get_running_loop()
    while True:
        due_at = loop.time() + interval_s
        await asyncio.sleep(interval_s)
        observe(max(0.0, loop.time() - due_at))
