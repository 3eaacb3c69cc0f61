"""Every route of the router, asked without a key, with a wrong one, without the scope, and by another tenant.

The routes come from the router, so that a new one cannot be missed.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, get_args

import pytest
from starlette.routing import Route

from server.api.access import ACCESS, OPEN, guard, scopes_of
from server.api.openapi.operations import OPERATIONS
from server.api.routes import build_routes
from server.caller import KeyScope
from server.config.server_section import Limits
from server.models.registry import ModelRegistry
from server.services import build_services
from tests.fakes.keyed_server import KeyedServer, keyed_server, raw_status
from tests.fakes.keys import ALL_SCOPES, key_named

ALICE, ALICES = key_named("alice", tenant="a")
BOB, BOBS = key_named("bob", tenant="b")
LACKING = {
    scopes: key_named(f"lacking-{number}", scopes=ALL_SCOPES - set(scopes))
    for number, scopes in enumerate(sorted(set(ACCESS.values()) - {OPEN}))
}
WRONG = "hk-" + "w" * 43

ADD_IT = "add it to ACCESS in server/api/access.py, with the scope that it needs"


def routes() -> list[tuple[str, str]]:
    """Method and path of all that the router has."""
    limits = Limits()
    services = build_services(ModelRegistry([]), limits, started_at_s=0, version="")
    found = build_routes(services, limits)
    return sorted({(method, route.path) for route in found for method in route.methods or ()})


GUARDED = [(method, path) for method, path in routes() if ACCESS.get(path) != OPEN]
OPENED = [(method, path) for method, path in routes() if ACCESS.get(path) == OPEN]


def anywhere(path: str) -> str:
    return re.sub(r"\{[\w:]+\}", "x", path)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[KeyedServer]:
    async with keyed_server(tmp_path, ALICES, BOBS, *(key for _, key in LACKING.values())) as server:
        yield server


# ---- the table


def test_every_route_is_in_the_table_and_nothing_else_is() -> None:
    paths = {path for _, path in routes()}

    assert paths - ACCESS.keys() == set(), ADD_IT
    assert ACCESS.keys() - paths == set()


def test_a_route_that_is_not_in_the_table_is_not_served() -> None:
    with pytest.raises(KeyError, match="/v1/forgotten"):
        guard([Route("/v1/forgotten", lambda _request: None)])


def test_every_scope_that_is_needed_can_be_had() -> None:
    assert {scope for scopes in ACCESS.values() for scope in scopes} <= set(get_args(KeyScope))


def test_what_is_open_has_no_fields_and_changes_nothing() -> None:
    assert {method for method, _ in OPENED} == {"GET", "HEAD"}
    assert not any("{" in path for _, path in OPENED)
    assert {path for _, path in OPENED} == {
        *("/health", "/health/live", "/livez", "/ready", "/health/ready", "/readyz"),
        *("/version", "/openapi.json", "/docs"),
    }


# ---- the matrix


@pytest.mark.parametrize("key", [None, WRONG], ids=["no key", "wrong key"])
async def test_nothing_else_is_served_without_a_key(server: KeyedServer, key: str | None) -> None:
    for method, path in GUARDED:
        response = await server.ask(method, anywhere(path), key)

        assert response.status_code == 401, f"{method} {path}"
        assert "x-request-id" in response.headers
        assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("key", [None, WRONG, ALICE], ids=["no key", "wrong key", "a key"])
async def test_what_is_open_is_served_to_all(server: KeyedServer, key: str | None) -> None:
    for method, path in OPENED:
        assert (await server.ask(method, path, key)).status_code == 200, f"{method} {path}"


async def test_no_other_scopes_suffice(server: KeyedServer) -> None:
    for method, path in GUARDED:
        key, _ = LACKING[ACCESS[path]]
        response = await server.ask(method, anywhere(path), key)

        assert response.status_code == 403, f"{method} {path}"
        if method != "HEAD":
            assert response.json()["error"]["type"] == "permission_error"


async def test_with_a_key_the_route_itself_answers(server: KeyedServer) -> None:
    for method, path in GUARDED:
        response = await server.ask(method, anywhere(path), ALICE)

        assert response.status_code not in (401, 403, 405), f"{method} {path}"


async def fill(server: KeyedServer) -> dict[str, str]:
    """Alice has one of everything; returns its ids by their names in paths."""

    async def made(path: str, **request: Any) -> str:
        response = await server.ask("POST", path, ALICE, **request)
        assert response.status_code == 200, response.text
        return str(response.json()["id"])

    file_id = await made("/v1/files", files={"file": ("a.txt", b"canary")}, data={"purpose": "assistants"})
    store_id = await made("/v1/vector_stores", json={"name": "manuals", "file_ids": [file_id]})
    batch_id = await made(f"/v1/vector_stores/{store_id}/file_batches", json={"file_ids": [file_id]})
    chat = example_of("/v1/responses")
    response_id = await made("/v1/responses", json=chat)
    return {"file_id": file_id, "store_id": store_id, "batch_id": batch_id, "response_id": response_id}


def example_of(path: str) -> dict[str, Any]:
    return next(each.example or {} for each in OPERATIONS if each.path == path and each.method == "POST")


OF_OBJECTS = [each for each in OPERATIONS if re.search(r"\{(file|store|batch|response)_id\}", each.path)]


async def test_what_is_another_tenants_does_not_exist(server: KeyedServer) -> None:
    ids = await fill(server)
    for operation in OF_OBJECTS:
        path = re.sub(r"\{(\w+)\}", lambda field: ids[field[1]], operation.path)
        body = {"json": operation.example} if operation.example is not None else {}
        refused = await server.ask(operation.method, path, BOB, **body)
        unknown = await server.ask(operation.method, re.sub(r"\{\w+\}", "x", operation.path), BOB, **body)

        assert (refused.status_code, unknown.status_code) == (404, 404), f"{operation.id}: {refused.text}"
        assert refused.json()["error"]["code"] == unknown.json()["error"]["code"]
        assert "canary" not in refused.text

    objects = [f"/v1/files/{ids['file_id']}", f"/v1/vector_stores/{ids['store_id']}"]
    for path in (*objects, f"/v1/responses/{ids['response_id']}"):
        assert (await server.ask("GET", path, ALICE)).status_code == 200


async def test_lists_hold_what_is_the_tenants_own(server: KeyedServer) -> None:
    await fill(server)

    for path in ("/v1/files", "/v1/vector_stores"):
        alices, bobs = await server.ask("GET", path, ALICE), await server.ask("GET", path, BOB)

        assert len(alices.json()["data"]) == 1
        assert bobs.json()["data"] == []


async def test_another_tenants_objects_are_of_no_use_in_a_body_either(server: KeyedServer) -> None:
    ids = await fill(server)
    mine = (await server.ask("POST", "/v1/vector_stores", BOB, json={"name": "mine"})).json()["id"]
    chat = example_of("/v1/chat/completions")
    search = {"type": "file_search", "vector_store_ids": [ids["store_id"]]}

    answers = [
        await server.ask("POST", f"/v1/vector_stores/{mine}/files", BOB, json={"file_id": ids["file_id"]}),
        await server.ask("POST", "/v1/vector_stores", BOB, json={"file_ids": [ids["file_id"]]}),
        await server.ask("POST", f"/v1/vector_stores/{mine}/file_batches", BOB, json={"file_ids": [ids["file_id"]]}),
        await server.ask("POST", "/v1/chat/completions", BOB, json={**chat, "stream": False, "tools": [search]}),
        await server.ask("POST", "/v1/chat/completions", BOB, json={**chat, "stream": False, "model": "handbook"}),
        await server.ask(
            "POST",
            "/v1/responses",
            BOB,
            json={**example_of("/v1/responses"), "previous_response_id": ids["response_id"]},
        ),
    ]

    assert [answer.status_code for answer in answers] == [404] * len(answers), [answer.text for answer in answers]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
async def test_vector_stores_are_not_read_without_the_scope_for_it(server: KeyedServer, path: str) -> None:
    key, _ = LACKING[("rag",)]
    search = {"type": "file_search", "vector_store_ids": ["vs_x"]}

    response = await server.ask("POST", path, key, json={**example_of(path), "tools": [search]})

    assert (response.status_code, response.json()["error"]["type"]) == (403, "permission_error")


# ---- paths that are not what they seem

ODD_PATHS = [
    *("//v1/models", "/v1//models", "/v1/models/", "/V1/Models", "/v1/models;x", "/v1/models\n", "/v1/../v1/models"),
    *("/health/../v1/models", "/health/", "/health\n", "/health;x", "/HEALTH", "/health/x", "/docs/../v1/files"),
    *("", "*", "http://localhost/health", "/v1/files/%2e%2e/health", "/health%00", "/nowhere"),
]


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS", "TRACE", "CONNECT"])
async def test_no_other_way_to_write_a_path_is_open(server: KeyedServer, method: str) -> None:
    for path in ODD_PATHS:
        assert await raw_status(server.app, method, path) == 401, path


async def test_with_a_key_for_something_else_it_leads_nowhere(server: KeyedServer) -> None:
    key, _ = LACKING["inference", "rag", "admin"]
    expected = {"/health\n": 200, "/v1/models/": 403, "/v1/models\n": 403}  # what the router takes for routes

    for path in ODD_PATHS:
        status = await raw_status(server.app, "GET", path, {"authorization": f"Bearer {key}"})

        assert status == expected.get(path, 404), path


@pytest.mark.parametrize("name", ["x-http-method-override", "x-original-url", "x-rewrite-url", "x-forwarded-prefix"])
async def test_headers_that_name_another_path_or_method_change_nothing(server: KeyedServer, name: str) -> None:
    response = await server.ask("GET", "/v1/models", headers={name: "/health"})

    assert response.status_code == 401


@pytest.mark.parametrize("host", ["a/health?", "a#", "[::1", "", "localhost/health", "x@localhost"])
async def test_a_host_header_does_not_lead_around_the_door(server: KeyedServer, host: str) -> None:
    assert await raw_status(server.app, "GET", "/v1/models", {"host": host}) == 401


def test_descriptions_know_what_a_path_needs() -> None:
    assert scopes_of("/v1/models/{model}") == ACCESS["/v1/models/{model:path}"]
