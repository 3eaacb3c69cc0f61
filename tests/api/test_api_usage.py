"""`GET /v1/usage`: what the client was told is what is reported; each tenant sees its own."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from server.access.usage_ledger import UsageLedger
from server.api.tenant import set_caller
from server.caller import Caller
from server.errors import Overloaded, WorkerCrashed
from server.types import Delta, Started
from tests.api.conftest import Stack
from tests.fakes.asgi import AsgiConnection
from tests.fakes.described import CheckedTransport
from tests.fakes.models import saying
from tests.fakes.usage import open_database, record, use

CHAT_URL = "/v1/chat/completions"
HELLO = {"model": "openai/talker", "messages": [{"role": "user", "content": "Hi"}]}

ADA = Caller(tenant="ada", key_id="key_1", scopes=frozenset({"inference"}))
ADMIN = Caller(tenant="ops", key_id="key_2", scopes=frozenset({"inference", "admin"}))


@pytest.fixture
async def ledger(stack: Stack, tmp_path: Path) -> AsyncIterator[UsageLedger]:
    async with open_database(tmp_path) as database:
        stack.usage = UsageLedger(lambda: database, tmp_path / "usage")
        async with stack.usage.opened(retention_days=1):
            yield stack.usage


@pytest.fixture
async def client(stack: Stack, ledger: UsageLedger) -> AsyncIterator[httpx.AsyncClient]:
    """Of a server that keeps usage; its answers are held against /openapi.json."""
    assert stack.usage is ledger
    async with httpx.AsyncClient(transport=CheckedTransport(stack.app()), base_url="http://test") as client:
        yield client


def sent_by(caller: Caller, app: ASGIApp) -> ASGIApp:
    """The app behind a door that knows who comes."""

    async def known(scope: Scope, receive: Receive, send: Send) -> None:
        set_caller(scope, caller)
        await app(scope, receive, send)

    return known


def client_of(stack: Stack, caller: Caller) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(sent_by(caller, stack.app())), base_url="http://test")


async def report(client: httpx.AsyncClient, **query: str) -> list[dict[str, Any]]:
    response = await client.get("/v1/usage", params=query)
    assert response.status_code == 200, response.text
    return list(response.json()["data"])


async def test_the_report_is_what_clients_were_told(
    client: httpx.AsyncClient, stack: Stack, ledger: UsageLedger
) -> None:
    told = [(await client.post(CHAT_URL, json={**HELLO, "n": n})).json()["usage"] for n in (1, 3)]
    stack.chat.steps = saying("a", "b", "c", prompt_tokens=9)
    events = await client.post(CHAT_URL, json={**HELLO, "stream": True, "stream_options": {"include_usage": True}})
    told.append(json.loads(events.text.split("data: ")[-2])["usage"])

    [line] = await report(client, group_by="model")

    assert line == {
        "model": "talker",  # not the alias that was asked for
        "num_requests": 3,
        "num_failed": 0,
        "prompt_tokens": sum(usage["prompt_tokens"] for usage in told),
        "cached_tokens": sum(usage["prompt_tokens_details"]["cached_tokens"] for usage in told),
        "completion_tokens": sum(usage["completion_tokens"] for usage in told),
        "cost": 0.0,
    }


async def test_all_kinds_of_requests_are_in_it(client: httpx.AsyncClient, ledger: UsageLedger) -> None:
    embedded = await client.post("/v1/embeddings", json={"model": "embedder", "input": ["abc", "de"]})
    ranked = await client.post("/v1/rerank", json={"model": "ranker", "query": "a", "documents": ["a b", "c"]})
    await client.post("/v1/tokenize", json={"model": "talker", "prompt": "nobody's usage"})

    lines = await report(client, group_by="kind,model")

    assert [(line["kind"], line["model"], line["prompt_tokens"]) for line in lines] == [
        ("embedding", "embedder", embedded.json()["usage"]["prompt_tokens"]),
        ("rerank", "ranker", 4),
    ]
    assert ranked.status_code == 200


@pytest.mark.usefixtures("kneading")
async def test_what_an_answer_from_sources_asks_besides_belongs_to_it(client: httpx.AsyncClient, stack: Stack) -> None:
    stack.chat.steps = saying("Bananas are not mentioned anywhere [1].")  # so that words do not tell
    body = {"model": "handbook", "messages": [{"role": "user", "content": "How do I knead?"}]}
    told = (await client.post(CHAT_URL, json=body)).json()["usage"]

    lines = {line["model"]: line for line in await report(client, group_by="model")}

    assert lines["talker"]["completion_tokens"] == told["completion_tokens"]
    assert lines["talker"]["prompt_tokens"] == told["prompt_tokens"]
    assert lines["ranker"]["prompt_tokens"] > 0  # which checked the citations
    assert {line["num_requests"] for line in lines.values()} == {1}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_crash_is_reported_with_what_ran(
    client: httpx.AsyncClient, stack: Stack, ledger: UsageLedger, *, stream: bool
) -> None:
    stack.chat.steps = (Started(5), Delta("half"), WorkerCrashed("it died"))
    await client.post(CHAT_URL, json={**HELLO, "stream": stream})

    [line] = await report(client, group_by="status")

    assert (line["status"], line["num_failed"]) == ("worker_crashed", 1)
    assert (line["prompt_tokens"], line["completion_tokens"]) == (5, 1)


async def test_a_client_that_left_is_reported_with_what_ran(stack: Stack, ledger: UsageLedger) -> None:
    stack.chat.steps = (Started(5), Delta("half"), asyncio.Event())
    app = stack.app()
    connection = AsgiConnection(app, CHAT_URL, {**HELLO, "stream": True})
    await connection.read_status()
    while b"half" not in await connection.read_chunk():
        pass
    connection.disconnect()
    await connection.done

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        [line] = await report(client, group_by="status")

    assert (line["status"], line["prompt_tokens"], line["completion_tokens"]) == ("client_gone", 5, 1)


async def test_refused_requests_used_nothing(client: httpx.AsyncClient, ledger: UsageLedger) -> None:
    await client.post(CHAT_URL, json={**HELLO, "model": "nobody"})
    await client.post(CHAT_URL, json={**HELLO, "temperature": 99})

    [line] = await report(client)

    assert line["num_requests"] == 0


async def test_what_a_full_queue_refuses_is_not_in_it(client: httpx.AsyncClient, stack: Stack) -> None:
    """A flood of refusals does not fill the disk; `hearth_admission_rejections_total` counts them."""
    stack.chat.steps = (Overloaded("full"),)
    refused = await client.post(CHAT_URL, json=HELLO)

    [line] = await report(client)

    assert (refused.status_code, line["num_requests"]) == (503, 0)


async def test_the_sender_is_what_the_header_says(client: httpx.AsyncClient, ledger: UsageLedger) -> None:
    for sender in ("eve", "eve", "x" * 500):
        await client.post(CHAT_URL, json=HELLO, headers={"x-hearth-sender": sender})

    lines = await report(client, group_by="sender")

    assert [(line["sender"], line["num_requests"]) for line in lines] == [("eve", 2), ("x" * 128, 1)]


async def test_a_tenant_sees_its_own_and_an_admin_all(stack: Stack, ledger: UsageLedger) -> None:
    async with client_of(stack, ADA) as ada, client_of(stack, ADMIN) as admin:
        for client in (ada, ada, admin):
            await client.post(CHAT_URL, json=HELLO)

        assert [line["num_requests"] for line in await report(ada)] == [2]
        assert [line["num_requests"] for line in await report(ada, tenant="ops")] == [2]
        by_tenant = await report(admin, group_by="tenant,key")
        assert [(line["tenant"], line["key"], line["num_requests"]) for line in by_tenant] == [
            ("ada", "key_1", 2),
            ("ops", "key_2", 1),
        ]
        assert [line["num_requests"] for line in await report(admin, tenant="ada")] == [2]


async def test_a_report_comes_as_csv_where_that_is_wanted(stack: Stack, ledger: UsageLedger) -> None:
    ledger.settle(record(use(prompt=3, completion=1), sender="=HYPERLINK(1)"))
    async with client_of(stack, ADMIN) as client:
        by_format = await client.get("/v1/usage", params={"group_by": "sender", "format": "csv"})
        by_header = await client.get("/v1/usage", params={"group_by": "sender"}, headers={"accept": "text/csv"})

    assert by_format.headers["content-type"] == "text/csv; charset=utf-8"
    assert by_format.text == by_header.text
    [line] = csv.DictReader(io.StringIO(by_format.text))
    assert line["sender"] == "'=HYPERLINK(1)"  # no formula
    assert (line["num_requests"], line["prompt_tokens"], line["completion_tokens"]) == ("1", "3", "1")


@pytest.mark.parametrize(
    ("since", "until", "num_requests"),
    [
        ("2026-08-29", "2026-08-30", 1),
        ("2026-08-29T12:00:00Z", "2026-08-29T12:00:01+00:00", 1),
        ("2026-08-29T12:00:01", "2026-08-30", 0),
        ("1788004800", "1788004801", 1),
    ],
)
async def test_a_report_is_of_a_time(
    stack: Stack, ledger: UsageLedger, since: str, until: str, num_requests: int
) -> None:
    ledger.settle(record())  # at noon
    async with client_of(stack, ADMIN) as client:
        [line] = await report(client, **{"from": since, "to": until})

    assert line["num_requests"] == num_requests


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"group_by": "model,shoe_size"}, "group_by"),
        ({"group_by": "model,model"}, "group_by"),
        ({"from": "yesterday"}, "from"),
        ({"to": "99999999999999999"}, "to"),
        ({"format": "xml"}, "format"),
        ({"since": "2026-01-01"}, "since"),
    ],
)
async def test_a_wrong_query_is_refused_by_name(client: httpx.AsyncClient, query: dict[str, str], param: str) -> None:
    response = await client.get("/v1/usage", params=query)

    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


async def test_more_lines_than_anybody_reads_are_refused(
    stack: Stack, ledger: UsageLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("server.access.usage_rows", "server.api.usage_report"):
        monkeypatch.setattr(f"{module}.MAX_GROUPS", 2)
    for sender in ("a", "b", "c"):
        ledger.settle(record(sender=sender))
    async with client_of(stack, ADMIN) as client:
        response = await client.get("/v1/usage", params={"group_by": "sender"})

    assert (response.status_code, response.json()["error"]["param"]) == (400, "group_by")


async def test_a_server_that_keeps_no_usage_says_so(stack: Stack) -> None:
    async with client_of(stack, ADMIN) as client:
        response = await client.get("/v1/usage")

    assert (response.status_code, response.json()["error"]["code"]) == (503, "storage_unavailable")
