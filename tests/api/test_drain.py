"""What clients and load balancers see of a server that is about to stop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest

from server.api.middleware.drain import Drain
from server.api.routes import HEALTH_PATHS, READY_PATHS
from tests.api.conftest import Stack


@dataclass
class Leaving:
    client: httpx.AsyncClient
    drain: Drain


@pytest.fixture
async def leaving(stack: Stack) -> AsyncIterator[Leaving]:
    app = stack.app()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield Leaving(client, app.state.drain)


async def test_nothing_says_so_before(leaving: Leaving) -> None:
    response = await leaving.client.get("/ready")

    assert response.status_code == 200
    assert "connection" not in response.headers


@pytest.mark.parametrize("path", READY_PATHS)
async def test_readiness_ends_when_the_drain_begins(leaving: Leaving, path: str) -> None:
    leaving.drain.has_begun = True

    response = await leaving.client.get(path)

    assert (response.status_code, response.json()) == (503, {"status": "draining", "models": {}})


async def test_what_comes_is_served_first_and_its_connection_ends(leaving: Leaving) -> None:
    leaving.drain.has_begun = True

    response = await leaving.client.get("/v1/models")

    assert response.status_code == 200
    assert response.headers["connection"] == "close"


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/models"), ("POST", "/v1/chat/completions"), ("GET", "/x")])
async def test_then_it_is_refused_with_a_time_to_come_back(leaving: Leaving, method: str, path: str) -> None:
    leaving.drain.has_begun = leaving.drain.is_refusing = True

    response = await leaving.client.request(method, path)

    assert response.status_code == 503
    assert response.json()["error"]["code"] == "model_unavailable"
    assert response.headers["connection"] == "close"
    assert int(response.headers["retry-after"]) >= 1
    assert response.headers["x-should-retry"] == "true"
    assert response.headers["x-request-id"]


async def test_on_anthropics_routes_it_has_anthropics_shape(leaving: Leaving) -> None:
    leaving.drain.has_begun = leaving.drain.is_refusing = True

    response = await leaving.client.post("/v1/messages", json={})

    assert response.json()["type"] == "error"


@pytest.mark.parametrize("path", sorted(set(HEALTH_PATHS) - set(READY_PATHS)))
async def test_the_process_is_healthy_to_the_end(leaving: Leaving, path: str) -> None:
    leaving.drain.has_begun = leaving.drain.is_refusing = True

    assert (await leaving.client.get(path)).status_code == 200
