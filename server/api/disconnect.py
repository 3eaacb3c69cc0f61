"""Stop working when the client has gone."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

Result = TypeVar("Result")


async def run_while_connected(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
    """Await `work`; when the client goes away first, cancel it and raise ClientDisconnect.

    To be called when the body has been read: from then on `receive` reports nothing but the disconnect.
    """
    task = asyncio.create_task(work)
    watcher = asyncio.create_task(_until_disconnect(receive))
    try:
        await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        watcher.cancel()
        # The work has let go of everything (worker, memory) before the request ends.
        await asyncio.gather(task, watcher, return_exceptions=True)


async def _until_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
