"""Hostile HTTP against a real `hearth serve`: odd paths, odd shapes, slow clients, too many of them."""

from __future__ import annotations

import json
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPConnection
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
import yaml

from benchmarks.server_process import ServerProcess
from tests.fakes.http_shapes import SECOND, SHAPES, statuses
from tests.integration.live_models import SCRIPT, ask

pytestmark = pytest.mark.integration

RECEIVE_TIMEOUT_S = 1.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("http")
    config = folder / "models.yaml"
    limits = {"receive_timeout_s": RECEIVE_TIMEOUT_S}
    config.write_text(yaml.safe_dump({"server": {"port": 0, "limits": limits}, "models": [SCRIPT]}))
    with ServerProcess(config, folder / "log") as running:
        running.wait_until_settled()
        yield running


def connect(server: ServerProcess) -> socket.socket:
    address = urlsplit(server.url)
    assert address.hostname
    assert address.port
    return socket.create_connection((address.hostname, address.port), timeout=20)


def exchange(server: ServerProcess, sent: bytes) -> bytes:
    """Everything that comes until the server ends the connection."""
    with connect(server) as plug:
        plug.sendall(sent)
        return b"".join(iter(lambda: plug.recv(65536), b""))


def raw(server: ServerProcess, method: str, path: str, **headers: str) -> tuple[int, str]:
    """Status and body of a request whose path nobody has tidied up on the way."""
    connection = HTTPConnection(server.url.removeprefix("http://"), timeout=20)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_a_smuggling_shape_is_refused_and_what_follows_is_not_read(server: ServerProcess, shape: bytes) -> None:
    answer = exchange(server, shape + SECOND)

    assert statuses(answer) == [400]
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "invalid_http"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "//v1/models", 404),
        ("GET", "/v1//models", 404),
        ("GET", "/v1/../v1/models", 404),
        ("GET", "/./v1/models", 404),
        ("GET", "/v1/%2e%2e/v1/models", 404),
        ("GET", "/v1/models;x=y", 404),
        ("GET", "/V1/models", 404),
        ("GET", "/v1/models/", 404),
        ("GET", "/v1/models%00", 404),
        ("GET", "/v1/models%0d%0aX:y", 404),
        ("GET", "/v1/models%ff", 404),
        ("GET", "/v1%2fmodels", 200),  # the same path to the router and to whoever decides about access
        ("GET", "/%76%31/models", 200),
        ("HEAD", "/v1/models", 200),
        ("OPTIONS", "/v1/models", 405),
        ("TRACE", "/v1/models", 405),
        ("PUT", "/v1/models", 405),
        ("PROPFIND", "/v1/models", 405),
    ],
)
def test_odd_paths_and_methods_lead_nowhere_else(server: ServerProcess, method: str, path: str, status: int) -> None:
    answered, body = raw(server, method, path)

    assert answered == status
    if method != "HEAD" and status >= 400:
        assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    "header", ["X_HTTP_Method_Override", "X_HTTP_Method", "X_Method_Override", "X_Original_URL", "X_Rewrite_URL"]
)
def test_no_header_stands_for_another_method_or_path(server: ServerProcess, header: str) -> None:
    plain = raw(server, "GET", "/v1/models")

    value = "/health" if "URL" in header else "DELETE"

    assert raw(server, "GET", "/v1/models", **{header: value}) == plain


@pytest.mark.parametrize("host", ["evil.example/v1/models?", "a#", "[::1", "", "a b"])
def test_a_host_that_is_none_is_refused(server: ServerProcess, host: str) -> None:
    assert raw(server, "GET", "/v1/models", Host=host)[0] == 400


def test_a_request_that_trickles_in_is_refused_in_time(server: ServerProcess) -> None:
    started = time.monotonic()
    with connect(server) as plug:
        plug.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\ncontent-type: application/json\r\n")
        plug.sendall(b"content-length: 1000\r\n\r\n{")
        answer = b"".join(iter(lambda: plug.recv(65536), b""))

    assert statuses(answer) == [408]
    assert time.monotonic() - started < RECEIVE_TIMEOUT_S + 20  # the machine may be busy


def test_an_error_keeps_the_connection_for_the_next_request(server: ServerProcess) -> None:
    with httpx.Client(base_url=server.url) as client:
        refused = client.post("/v1/chat/completions", json={"model": "nobody"})
        served = client.post("/v1/chat/completions", json=ask("hi"))

        assert (refused.status_code, served.status_code) == (400, 200)
        assert client._transport._pool.connections[0].info().endswith("Request Count: 2")  # type: ignore[attr-defined]


def test_a_server_without_free_descriptors_waits_and_goes_on_later(server: ServerProcess) -> None:
    """EMFILE: accepting must neither end nor be tried over and over."""
    process = psutil.Process(server.process.pid)
    allowed = process.num_fds() + 40
    soft, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (allowed, hard))
    try:
        with ExitStack() as plugs:
            for _ in range(120):
                plugs.enter_context(connect(server))
            before = process.cpu_times()
            time.sleep(1)
            after = process.cpu_times()
    finally:
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (soft, hard))

    assert after.user + after.system - before.user - before.system < 0.5
    give_up_at = time.monotonic() + 10
    while time.monotonic() < give_up_at:
        try:
            assert httpx.get(f"{server.url}/health", timeout=5).status_code == 200
            break
        except httpx.TransportError:
            continue
    else:
        raise AssertionError("the server takes no connections any more")
