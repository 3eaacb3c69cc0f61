from __future__ import annotations

import httpx
import pytest

from benchmarks.faults import NO_ANSWER, TRAFFIC, Traffic, keep_asking


@pytest.mark.parametrize("traffic", TRAFFIC, ids=lambda traffic: traffic.model)
async def test_every_request_has_texts_of_its_own(traffic: Traffic) -> None:
    """Else the server would compute them once, or not at all, and nothing would be in hand when it dies."""
    bodies: list[bytes] = []

    def respond(request: httpx.Request) -> httpx.Response:
        bodies.append(request.content)
        if len(bodies) == 3:
            raise RuntimeError("enough")
        return httpx.Response(200)

    async with httpx.AsyncClient(transport=httpx.MockTransport(respond), base_url="http://test") as client:
        with pytest.raises(RuntimeError, match="enough"):
            await keep_asking(client, traffic, [])

    assert len(set(bodies)) == 3
    assert not set(_texts(traffic.long("one"))) & set(_texts(traffic.long("other")))


def _texts(body: object) -> list[str]:
    """What a model is to compute: a query alone is not."""
    assert isinstance(body, dict)
    texts = body.get("documents") or body.get("input") or [message["content"] for message in body["messages"]]
    assert isinstance(texts, list)
    return texts


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
