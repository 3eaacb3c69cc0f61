"""Models come and go over HTTP: the application as it is joined, with scripted models in real worker processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.api.application import build_api
from server.app import build_app
from server.config.load import load_config
from server.config.schema import HearthConfig
from server.config.server_section import Limits
from server.models.registry import ModelEntry, ModelRegistry
from server.models.weights import WeightsStore
from server.services import build_services
from server.services.loading import LoadingService
from server.workers.keeper import Keeper
from server.workers.recent_lines import RecentLines
from tests.fakes.described import CheckedTransport
from tests.fakes.models import FakeChatModel
from tests.fakes.scripted import scripted

MODELS = """
models:
  - id: talker
    kind: chat
    backend: script
    aliases: [openai/talker]
    script: [{match: slow, text: a b c d, delay_ms: 50}, {text: hello there}]
  - {id: shy, kind: chat, backend: script, lazy: true, script: [{text: hi}]}
"""
ONLY_SHY = """
server: {port: 9999}
models:
  - {id: shy, kind: chat, backend: script, lazy: true, script: [{text: hi}]}
"""

Serving = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "models.yaml").write_text(MODELS)
    return tmp_path / "models.yaml"


@pytest.fixture
def rewrite(config: Path) -> Callable[[str], int]:
    return config.write_text


@pytest.fixture
def serving(config: Path) -> Serving:
    @asynccontextmanager
    async def serve(environ: dict[str, str] | None = None) -> AsyncIterator[httpx.AsyncClient]:
        def read() -> HearthConfig:
            return load_config(config, environ=environ or {}).config

        settings = read()
        weights = WeightsStore(settings.server.weights_dir, config.parent / "downloads")
        app = build_app(settings, weights, read_config=read)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=CheckedTransport(app), base_url="http://localhost", timeout=30) as client,
        ):
            yield client

    return serve


async def ask(client: httpx.AsyncClient, model: str, text: str = "hi") -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": text}]}
    return await client.post("/v1/chat/completions", json=body)


async def model_when(client: httpx.AsyncClient, name: str, state: str) -> dict[str, Any]:
    async with asyncio.timeout(20):
        while True:
            body: dict[str, Any] = (await client.get(f"/v1/models/{name}")).json()
            if body["state"] == state:
                return body
            await asyncio.sleep(0.02)


async def test_a_model_is_loaded_unloaded_and_loaded_again_by_a_request(serving: Serving) -> None:
    async with serving() as client:
        asked = await client.post("/v1/models/shy/load")
        assert (asked.status_code, asked.json()["state"]) == (202, "loading")
        assert asked.json()["loading"]["elapsed_s"] >= 0
        await model_when(client, "shy", "ready")
        again = await client.post("/v1/models/shy/load")

        gone = await client.post("/v1/models/shy/unload")
        answered = await ask(client, "shy")

    assert (again.status_code, again.json()["state"]) == (200, "ready")
    assert (gone.status_code, gone.json()["state"]) == (200, "unloaded")
    assert answered.json()["choices"][0]["message"]["content"] == "hi"


async def test_running_requests_end_before_their_model_goes(serving: Serving) -> None:
    async with serving() as client:
        await model_when(client, "talker", "ready")
        running = asyncio.create_task(ask(client, "talker", "slow"))
        async with asyncio.timeout(10):
            while (await client.get("/v1/models/talker")).json()["num_requests"] == 0:  # noqa: ASYNC110  # it is asked
                await asyncio.sleep(0.01)

        gone = await client.post("/v1/models/openai/talker/unload")

        assert gone.json()["state"] in ("unloaded", "draining")
        assert (await running).json()["choices"][0]["message"]["content"] == "a b c d"
        await model_when(client, "talker", "unloaded")


@pytest.mark.parametrize("action", ["load", "unload"])
async def test_an_unknown_model_is_not_found(serving: Serving, action: str) -> None:
    async with serving() as client:
        refused = await client.post(f"/v1/models/nobody/{action}")

    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")


async def test_a_model_that_does_not_fit_is_a_503_with_numbers_and_has_not_failed(serving: Serving) -> None:
    async with serving({"HEARTH_MEMORY_BUDGET_MB": "1"}) as client:
        by_request, by_operator = await ask(client, "shy"), await client.post("/v1/models/shy/load")
        body = (await client.get("/v1/models/shy")).json()

    for refused in (by_request, by_operator):
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "insufficient_memory")
        assert "needs 45 MiB, but there is 1 MiB free" in refused.json()["error"]["message"]
        assert int(refused.headers["retry-after"]) > 0
    assert body["state"] == "unloaded"


async def test_a_server_whose_models_are_loaded_on_demand_is_ready(serving: Serving) -> None:
    async with serving() as client:
        await model_when(client, "talker", "ready")
        await client.post("/v1/models/talker/unload")

        ready = await client.get("/ready")

    assert (ready.status_code, ready.json()["models"]["talker"]["state"]) == (200, "unloaded")


async def test_a_model_that_nobody_asks_goes_by_itself(serving: Serving) -> None:
    async with serving({"HEARTH_MODEL_TTL_S": "0.2"}) as client:
        ready = await model_when(client, "talker", "ready")
        await model_when(client, "talker", "unloaded")

    assert 0 <= ready["expires_in_s"] <= 0.2


async def test_models_yaml_is_put_in_force(serving: Serving, rewrite: Callable[[str], int]) -> None:
    async with serving() as client:
        rewrite(ONLY_SHY)
        report = await client.post("/admin/reload")
        models = (await client.get("/v1/models")).json()["data"]

    assert report.json() == {
        "object": "reload",
        "added": [],
        "removed": ["talker"],
        "replaced": [],
        "updated": [],
        "unchanged": ["shy"],
        "failed": {},
        "kept": [],
        "needs_restart": ["server.port"],
    }
    assert [model["id"] for model in models] == ["shy"]


async def test_new_prices_and_new_models_are_reckoned_with_after_a_reload(
    serving: Serving, rewrite: Callable[[str], int]
) -> None:
    new = "  - {id: new, kind: chat, backend: script, prices: {output: 300}, script: [{text: one two}]}\n"
    async with serving() as client:
        await model_when(client, "talker", "ready")
        rewrite(MODELS.replace("aliases:", "prices: {output: 500}\n    aliases:") + new)
        report = (await client.post("/admin/reload")).json()
        for name in ("talker", "new"):
            body = {"model": name, "messages": [{"role": "user", "content": "hi"}]}
            assert (await client.post("/v1/chat/completions", json=body)).status_code == 200
        lines = (await client.get("/v1/usage", params={"group_by": "model"})).json()["data"]
        metrics = (await client.get("/metrics")).text

    assert (report["added"], report["updated"], report["replaced"]) == (["new"], ["talker"], [])
    for line, price in zip(sorted(lines, key=lambda line: str(line["model"])), (300, 500), strict=True):
        assert line["cost"] == pytest.approx(line["completion_tokens"] * price / 1e6) != 0
    assert 'hearth_generation_tokens_total{model="new"} ' in metrics


async def test_a_wrong_file_is_refused_with_line_and_key_and_changes_nothing(
    serving: Serving, config: Path, rewrite: Callable[[str], int]
) -> None:
    async with serving() as client:
        rewrite(ONLY_SHY.replace("lazy: true", "lazy: perhaps"))
        refused = await client.post("/admin/reload")
        models = (await client.get("/v1/models")).json()["data"]

    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (400, "invalid_config")
    assert f"{config}:4: models.shy.lazy is" in error["message"]
    assert len(models) == 2


async def test_what_workers_have_logged_can_be_read() -> None:
    registry, lines, limits = ModelRegistry([ModelEntry(scripted("actor"), FakeChatModel())]), RecentLines(), Limits()
    lines.add("actor", "loaded")
    loading = LoadingService(registry, _no_keeper, lines)
    services = build_services(registry, limits, started_at_s=1, version="1", loading=loading)
    transport = CheckedTransport(build_api(services, limits))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        page, of_one, newer, unknown, wrong = [
            await client.get(f"/admin/logs{query}")
            for query in ("", "?model=actor", "?after=1", "?model=nobody", "?limit=0")
        ]

    [line] = page.json()["data"]
    assert (line["number"], line["model"], line["text"], page.json()["last"]) == (1, "actor", "loaded", 1)
    assert of_one.json() == page.json()
    assert (newer.json()["data"], newer.json()["last"]) == ([], 1)
    assert (unknown.status_code, wrong.status_code) == (404, 400)


def _no_keeper(_model_id: str) -> Keeper:
    raise AssertionError


async def test_a_server_that_was_not_started_from_a_file_says_so(client: httpx.AsyncClient) -> None:
    refused = await client.post("/admin/reload")

    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_config")
