"""Pages of other sites, and names that are not ours: what browsers send for them is refused, all else is not."""

from __future__ import annotations

from collections.abc import Mapping

import httpx
import pytest
from starlette.applications import Starlette

from server.access.key_ring import KeyRing
from server.access.policy import AccessPolicy
from server.api.application import build_api
from server.config.server_section import Limits
from server.models.registry import ModelRegistry
from server.services import build_services
from tests.fakes.keyed_server import raw_status
from tests.fakes.keys import key_named

PAGE = "https://chat.example.com"
KEY, RECORD = key_named("a")


def app_with(**policy: object) -> Starlette:
    limits = Limits()
    services = build_services(ModelRegistry([]), limits, started_at_s=0, version="1")
    return build_api(services, limits, policy=AccessPolicy(**policy))  # type: ignore[arg-type]  # a test's own words


LOCAL = app_with(checks_hosts=True, allowed_hosts=frozenset({"hearth.example"}))


async def ask(
    app: Starlette, headers: Mapping[str, str], method: str = "GET", path: str = "/v1/models"
) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost:8000") as client:
        return await client.request(method, path, headers=headers)


# ---- names


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000", "10.2.3.4", "LOCALHOST", "hearth.example:443"],
)
async def test_names_and_addresses_of_ours_are_served(host: str) -> None:
    assert await raw_status(LOCAL, "GET", "/v1/models", {"host": host}) == 200


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "a/v1/models?", "a#", "[::1", "localhost@evil"],
)
async def test_others_are_refused(method: str, host: str) -> None:
    assert await raw_status(LOCAL, method, "/v1/models", {"host": host}) == 403


async def test_a_request_without_a_name_is_served() -> None:
    """HTTP/1.0 has none; no browser speaks it."""
    assert await raw_status(LOCAL, "GET", "/v1/models", {"accept": "*/*"}) == 200


async def test_behind_keys_any_name_does() -> None:
    app = app_with(ring=KeyRing.of(RECORD))

    assert await raw_status(app, "GET", "/v1/models", {"host": "any.example", "x-api-key": KEY}) == 200


async def test_the_refusal_says_what_to_do() -> None:
    error = (await ask(LOCAL, {"host": "evil.example"})).json()["error"]

    assert (error["type"], error["code"]) == ("permission_error", "host_not_allowed")
    assert "server.allowed_hosts" in error["message"]


# ---- pages

FOREIGN = [
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": "http://localhost.evil.example"},
    {"origin": "http://localhost:3000"},
    {"origin": "https://evil.example", "sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"},
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "script"},
]


@pytest.mark.parametrize("headers", FOREIGN)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(
            ("GET", "/v1/models"),
            ("POST", "/v1/chat/completions"),
            ("PUT", "/v1/files"),
            ("DELETE", "/v1/files/file-1"),
        ),
        *(("GET", "/v1/files/file-1/content"), ("OPTIONS", "/v1/files"), ("HEAD", "/v1/models")),
    ],
)
async def test_pages_of_other_sites_are_refused_whatever_they_do(
    headers: Mapping[str, str], method: str, path: str
) -> None:
    response = await ask(LOCAL, headers, method, path)

    assert response.status_code == 403
    assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://localhost:8000"},
        {"origin": "http://localhost:8000", "sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "none", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"},
        {"origin": "https://behind.a.proxy", "sec-fetch-site": "same-origin"},
        {"user-agent": "OpenAI/Python 3.0", "x-stainless-lang": "python"},
    ],
)
async def test_programs_and_pages_of_ours_are_served(headers: Mapping[str, str]) -> None:
    assert (await ask(LOCAL, headers)).status_code == 200


async def test_a_link_to_what_is_open_may_be_followed() -> None:
    followed = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}

    assert (await ask(LOCAL, followed, path="/docs")).status_code == 200


# ---- pages that are allowed

ALLOWING = app_with(ring=KeyRing.of(RECORD), allowed_origins=frozenset({PAGE}))


async def test_an_allowed_page_may_ask_and_read_the_answer() -> None:
    headers = {"origin": PAGE, "sec-fetch-site": "cross-site", "authorization": f"Bearer {KEY}"}

    response = await ask(ALLOWING, headers)

    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == PAGE
    assert "access-control-allow-credentials" not in response.headers
    assert "Origin" in response.headers["vary"]


async def test_its_browser_may_ask_beforehand_without_a_key() -> None:
    wanted = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, x-stainless-os",
    }

    response = await ask(ALLOWING, {"origin": PAGE, **wanted}, "OPTIONS", "/v1/chat/completions")

    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == PAGE
    assert "authorization" in response.headers["access-control-allow-headers"]


async def test_it_reads_why_it_is_refused() -> None:
    response = await ask(ALLOWING, {"origin": PAGE})

    assert response.status_code == 401
    assert response.headers["access-control-allow-origin"] == PAGE


@pytest.mark.parametrize(
    "origin",
    ["null", "https://chat.example.com.evil", "http://chat.example.com", f"{PAGE}:8443", "https://x.chat.example.com"],
)
async def test_a_page_like_it_may_not(origin: str) -> None:
    response = await ask(ALLOWING, {"origin": origin, "authorization": f"Bearer {KEY}"})

    assert response.status_code == 403
    assert "access-control-allow-origin" not in response.headers
