"""`GET /metrics`, over HTTP."""

from __future__ import annotations

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.api.conftest import Stack
from tests.fakes.promtool import metric_complaints

URL = "/v1/chat/completions"
HELLO = {"model": "talker", "messages": [{"role": "user", "content": "Hi"}]}


async def page(client: httpx.AsyncClient) -> str:
    response = await client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return response.text


def series(text: str) -> dict[str, float]:
    return {
        f"{sample.name}{sorted(sample.labels.values())}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_requests_are_counted(client: httpx.AsyncClient) -> None:
    await client.post(URL, json=HELLO)
    await client.post("/v1/embeddings", json={"model": "embedder", "input": "abc"})

    found = series(await page(client))

    assert found["hearth_requests_total['completed', 'talker']"] == 1
    assert found["hearth_prompt_tokens_total['embedder']"] == 3
    assert found["hearth_e2e_request_latency_seconds_count['talker']"] == 1
    assert found["hearth_http_responses_total['200']"] == 2
    assert found["hearth_live_requests[]"] == 0


async def test_names_that_clients_make_up_are_in_no_label(stack: Stack) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(stack.app()), base_url="http://test") as client:
        await client.post(URL, json=HELLO)
        before = series(await page(client)).keys()

        for number in range(10_000):
            sent = {"x-hearth-sender": f"sender-{number}", "x-request-id": f"request-{number}"}
            await client.post(f"{URL}?x={number}", json={**HELLO, "model": f"model-{number}"}, headers=sent)

        text = await page(client)
    assert "model-" not in text
    assert "sender-" not in text
    assert series(text).keys() - before == {"hearth_http_responses_total['404']"}


async def test_a_scrape_is_not_counted(client: httpx.AsyncClient) -> None:
    assert series(await page(client)).keys() == series(await page(client)).keys()
    assert "hearth_http_responses_total{" not in await page(client)


async def test_promtool_has_nothing_to_say(client: httpx.AsyncClient) -> None:
    await client.post(URL, json=HELLO)

    assert metric_complaints(await page(client)) == ""
