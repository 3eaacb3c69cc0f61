"""Keys as clients send them: every form, right and wrong, decides the same way on every restriction."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.access.api_key import ApiKey
from server.access.failed_tries import NUM_TRIES
from server.access.key_ring import KeyRing
from server.access.policy import AccessPolicy
from server.api.application import build_api
from server.config.server_section import Limits
from server.errors import StorageUnavailable
from server.models.registry import ModelRegistry
from server.services import build_services
from tests.fakes.keyed_server import CHAT, Form, KeyedServer, credentials, keyed_server
from tests.fakes.keys import key_named

KEY, RECORD = key_named("alice", tenant="a")
OTHER, OTHERS = key_named("bob", tenant="b")
FORMS: tuple[Form, ...] = ("bearer", "x-api-key")
HELLO = {"model": CHAT.id, "messages": [{"role": "user", "content": "Hi"}]}

RESTRICTED: dict[str, tuple[str | tuple[str, ApiKey], int, str | None]] = {
    "right": (KEY, 200, None),
    "unknown": ("hk-nobody", 401, "invalid_api_key"),
    "expired": (key_named("expired", expires_at=1), 401, "invalid_api_key"),
    "revoked": (key_named("revoked", revoked_at=1), 401, "invalid_api_key"),
    "scope": (key_named("scope", scopes=frozenset({"rag"})), 403, "missing_scope"),
    "model": (key_named("model", models=frozenset({"other"})), 404, "model_not_found"),
}
"""What is wrong with a key: it, the status of a chat, and the code."""

RECORDS = [RECORD, OTHERS, *(key[1] for key, _, _ in RESTRICTED.values() if isinstance(key, tuple))]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[KeyedServer]:
    async with keyed_server(tmp_path, *RECORDS) as server:
        yield server


async def ask(server: KeyedServer, headers: dict[str, str]) -> httpx.Response:
    return await server.ask("GET", "/v1/models", headers=headers)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("restriction", RESTRICTED)
async def test_both_forms_decide_alike(server: KeyedServer, restriction: str, form: Form) -> None:
    key, status, code = RESTRICTED[restriction]
    text = key[0] if isinstance(key, tuple) else key

    response = await server.ask("POST", "/v1/chat/completions", text, form=form, json=HELLO)

    assert response.status_code == status
    assert code is None or response.json()["error"]["code"] == code


@pytest.mark.parametrize("form", FORMS)
async def test_both_forms_belong_to_the_same_tenant(server: KeyedServer, form: Form) -> None:
    upload: dict[str, Any] = {"files": {"file": ("a.txt", b"x")}, "data": {"purpose": "assistants"}}
    file_id = (await server.ask("POST", "/v1/files", KEY, form=form, **upload)).json()["id"]

    found = [
        (await server.ask("GET", f"/v1/files/{file_id}", key, form=each)).status_code
        for key in (KEY, OTHER)
        for each in FORMS
    ]

    assert found == [200, 200, 404, 404]


@pytest.mark.parametrize("name", ["Authorization", "AUTHORIZATION", "authorization"])
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer ", " Bearer"])
async def test_case_and_spaces_do_not_matter(server: KeyedServer, name: str, scheme: str) -> None:
    assert (await ask(server, {name: f"{scheme} {KEY}"})).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": ""},
        {"authorization": KEY},
        {"authorization": f"Basic {KEY}"},
        {"authorization": "Basic dXNlcjpwYXNz"},
        {"authorization": f"Token {KEY}"},
        {"authorization": f"Bearer {KEY}, Bearer {KEY}"},
        {"authorization": f"Bearer {KEY} {KEY}"},
        {"authorization": "Bearer hk-\u00e9\u00e9"},
        {"authorization": f"Bearer {KEY}\u00a0"},
        {"authorization": f"Bearer {KEY}\x0b"},
        {"authorization": "Bearer " + "x" * 10_000},
        {"authorization": "Bearer ' OR 1=1 --"},
        {"x-api-key": "hk-'or'1'='1';--"},
        {"x-api-key": ""},
        {"x-api-key": f"Bearer {KEY}"},
        {"x-api-key": "hk-\u00e9"},
        {"authorization": f"Basic {KEY}", "x-api-key": KEY},
        {"authorization": f"Bearer {KEY}", "x-api-key": OTHER},
        {"authorization": f"Bearer {KEY}", "x-api-key": ""},
        {"api-key": KEY},
        {"cookie": f"api_key={KEY}"},
        {"proxy-authorization": f"Bearer {KEY}"},
    ],
)
async def test_what_is_no_key_or_more_than_one_is_refused(server: KeyedServer, headers: dict[str, str]) -> None:
    raw = {name: value.encode("utf-8") for name, value in headers.items()}

    response = await ask(server, raw)  # type: ignore[arg-type]  # as bytes, so that it need not be ASCII

    assert response.status_code == 401
    assert response.json()["error"] == {
        "message": response.json()["error"]["message"],
        "type": "authentication_error",
        "param": None,
        "code": "invalid_api_key",
    }
    assert KEY not in response.text and OTHER not in response.text


async def test_the_same_key_twice_is_one_key(server: KeyedServer) -> None:
    assert (await ask(server, {"authorization": f"Bearer {KEY}", "x-api-key": KEY})).status_code == 200


async def test_a_query_is_no_place_for_a_key(server: KeyedServer) -> None:
    assert (await server.ask("GET", f"/v1/models?api_key={KEY}&key={KEY}")).status_code == 401


@pytest.mark.parametrize(
    ("key", "status", "kind"), [(None, 401, "authentication_error"), (RESTRICTED["scope"][0], 403, "permission_error")]
)
async def test_anthropics_paths_refuse_in_anthropics_shape(
    server: KeyedServer, key: Any, status: int, kind: str
) -> None:
    response = await server.ask("POST", "/v1/messages", key and key[0], json=HELLO)

    assert response.status_code == status
    assert (response.json()["type"], response.json()["error"]["type"]) == ("error", kind)


async def test_what_is_refused_is_in_the_log_without_the_key(
    server: KeyedServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    response = await server.ask("GET", "/v1/models", "hk-canary")

    [line] = [vars(record) for record in caplog.records if record.name.endswith("access_log")]
    assert (line["status"], line["error"]) == (401, "invalid_api_key")
    assert "tenant" not in line
    assert line["request_id"] == response.headers["x-request-id"]
    assert "hk-canary" not in caplog.text + str([vars(record) for record in caplog.records])


async def test_too_many_wrong_keys_of_one_address_are_not_looked_at(server: KeyedServer) -> None:
    transport = httpx.ASGITransport(server.app, client=("198.51.100.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        wrong = [await client.get("/v1/models", headers=credentials(f"hk-{number}")) for number in range(NUM_TRIES + 1)]
        right = await client.get("/v1/models", headers=credentials(KEY))
        without = await client.get("/v1/models")

    assert [each.status_code for each in wrong] == [401] * NUM_TRIES + [429]
    assert 1 <= int(wrong[-1].headers["retry-after"]) <= 120
    assert wrong[-1].json()["error"]["code"] == "too_many_failed_keys"
    assert (right.status_code, without.status_code) == (200, 401)


# ---- without keys


def app_with(ring: KeyRing, *, needs_keys: bool = False) -> httpx.ASGITransport:
    limits = Limits()
    services = build_services(ModelRegistry([]), limits, started_at_s=0, version="1")
    return httpx.ASGITransport(build_api(services, limits, policy=AccessPolicy(ring=ring, needs_keys=needs_keys)))


async def statuses(transport: httpx.ASGITransport, key: str | None) -> tuple[int, int]:
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        health = await client.get("/health", headers=credentials(key))
        return health.status_code, (await client.get("/v1/models", headers=credentials(key))).status_code


@pytest.mark.parametrize("key", [None, "none", KEY])
async def test_a_server_without_keys_takes_any(key: str | None) -> None:
    """SDKs do not go without one."""
    assert await statuses(app_with(KeyRing.of()), key) == (200, 200)


async def test_one_that_others_reach_does_not() -> None:
    assert await statuses(app_with(KeyRing.of(), needs_keys=True), None) == (200, 401)


@pytest.mark.parametrize("key", [None, KEY])
async def test_keys_that_cannot_be_read_let_nobody_in(key: str | None) -> None:
    ring = KeyRing.of(RECORD)
    ring.shut(StorageUnavailable("keys and usage are not available"))

    assert await statuses(app_with(ring), key) == (200, 503)


async def test_who_is_nobody_is_told_of_no_model(server: KeyedServer) -> None:
    without, wrong, right = [(await server.ask("GET", "/ready", key)).json() for key in (None, "hk-x", KEY)]

    assert without == wrong == {"status": "ready", "models": {}}
    assert CHAT.id in right["models"]
