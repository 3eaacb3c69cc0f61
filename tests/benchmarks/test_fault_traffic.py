from __future__ import annotations

import httpx
import pytest

from benchmarks.faults import NO_ANSWER, TRAFFIC, keep_asking


async def test_a_broken_connection_counts_as_a_failure_and_the_asking_goes_on() -> None:
    statuses: list[int] = []
    endings = iter([httpx.ConnectError("refused"), None, RuntimeError("a bug is not swallowed")])

    def respond(_request: httpx.Request) -> httpx.Response:
        if error := next(endings):
            raise error
        return httpx.Response(200)

    async with httpx.AsyncClient(transport=httpx.MockTransport(respond), base_url="http://test") as client:
        with pytest.raises(RuntimeError, match="a bug is not swallowed"):
            await keep_asking(client, TRAFFIC[0], statuses)

    assert statuses == [NO_ANSWER, 200]
