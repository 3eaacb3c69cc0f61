"""What the head of a request may be, without a socket; the shapes that the parser refuses: `test_http_protocol.py`."""

from __future__ import annotations

import json

import pytest

from server.api.refusal import Refusal
from server.api.request_head import MAX_HEAD_BYTES, MAX_HEADERS, MAX_TARGET_BYTES, Headers, check_head

HOST = (b"host", b"localhost:8000")


def refusal(method: bytes, target: bytes, version: str, headers: Headers) -> str | None:
    try:
        check_head(method, target, version, headers)
    except Refusal as exc:
        return exc.message
    return None


@pytest.mark.parametrize(
    "host", [b"localhost", b"127.0.0.1:8000", b"[::1]", b"[fe80::1]:80", b"xn--mnchen-3ya.de", b"my_service.lan.:1"]
)
def test_a_host_with_or_without_a_port_is_taken(host: bytes) -> None:
    assert refusal(b"GET", b"/v1/models", "1.1", [(b"host", host)]) is None


@pytest.mark.parametrize(
    "host", [b"", b"a/v1/models?", b"a#", b"a@b", b"[::1", b"::1", b"a:b", b"a:123456", b"a b", b"a,b", b"\xc3\xa4"]
)
def test_what_is_no_host_is_refused(host: bytes) -> None:
    with pytest.raises(Refusal, match="Host header") as caught:
        check_head(b"GET", b"/v1/models", "1.1", [(b"host", host)])

    assert caught.value.status == 400


@pytest.mark.parametrize("hosts", [[], [HOST, HOST], [HOST, (b"host", b"evil.example")]])
def test_there_is_one_host(hosts: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(Refusal, match=f"has {len(hosts)} Host headers"):
        check_head(b"GET", b"/", "1.1", hosts)


def test_http_1_0_needs_no_host() -> None:
    assert refusal(b"GET", b"/health", "1.0", []) is None


@pytest.mark.parametrize(
    "target", [b"/", b"/v1/models/team%2Flibrarian", b"//v1/models", b"/v1/../x", b"/v1;x/models", b"/a?b=c&d=%00"]
)
def test_odd_paths_are_paths(target: bytes) -> None:
    """They lead nowhere, or where they say: the router and whoever decides about access see the same one."""
    assert refusal(b"GET", target, "1.1", [HOST]) is None


@pytest.mark.parametrize(
    ("method", "target"),
    [
        (b"GET", b"http://evil.example/health"),
        (b"CONNECT", b"evil.example:443"),
        (b"CONNECT", b"/"),
        (b"OPTIONS", b"*"),
        (b"GET", b"/health#x"),
        (b"GET", b""),
    ],
)
def test_what_is_no_path_is_refused(method: bytes, target: bytes) -> None:
    with pytest.raises(Refusal, match="the request line"):
        check_head(method, target, "1.1", [HOST])


@pytest.mark.parametrize("version", ["0.9", "2.0"])
def test_other_versions_are_refused(version: str) -> None:
    with pytest.raises(Refusal, match=rf"HTTP/{version}; send HTTP/1\.1"):
        check_head(b"GET", b"/", version, [HOST])


@pytest.mark.parametrize("value", [b"chunked", b" Chunked "])
def test_chunks_are_taken(value: bytes) -> None:
    assert refusal(b"POST", b"/", "1.1", [HOST, (b"transfer-encoding", value)]) is None


@pytest.mark.parametrize("values", [[b"gzip, chunked"], [b"chunked", b"chunked"], [b"identity"], [b"xchunked"], [b""]])
def test_no_other_transfer_encoding_is_taken(values: list[bytes]) -> None:
    with pytest.raises(Refusal, match="Transfer-Encoding"):
        check_head(b"POST", b"/", "1.1", [HOST, *((b"transfer-encoding", value) for value in values)])


def test_http_1_0_has_no_chunks() -> None:
    with pytest.raises(Refusal, match=r"HTTP/1\.0 has no Transfer-Encoding"):
        check_head(b"POST", b"/", "1.0", [HOST, (b"transfer-encoding", b"chunked")])


def test_the_largest_head_is_taken() -> None:
    headers = [HOST, *((b"a%d" % n, b"x") for n in range(MAX_HEADERS - 1))]

    assert refusal(b"GET", b"/" + b"a" * (MAX_TARGET_BYTES - 1), "1.1", headers) is None


@pytest.mark.parametrize(
    ("target", "headers", "status"),
    [
        (b"/" + b"a" * MAX_TARGET_BYTES, [HOST], 414),
        (b"/", [HOST, *((b"a", b"b"),) * MAX_HEADERS], 431),
        (b"/", [HOST, (b"cookie", b"x" * MAX_HEAD_BYTES)], 431),
    ],
)
def test_a_larger_head_is_refused(target: bytes, headers: list[tuple[bytes, bytes]], status: int) -> None:
    with pytest.raises(Refusal) as caught:
        check_head(b"GET", target, "1.1", headers)

    assert caught.value.status == status


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (400, "invalid_request_error", "invalid_http"),
        (408, "invalid_request_error", "request_timeout"),
        (503, "server_error", "overloaded"),
    ],
)
def test_a_refusal_is_answered_in_openais_shape(status: int, kind: str, code: str) -> None:
    refused = Refusal(status, "why")

    head, _, body = refused.answer().partition(b"\r\n\r\n")

    lines = head.decode().split("\r\n")
    assert lines[0].startswith(f"HTTP/1.1 {status} ")
    assert {"connection: close", f"content-length: {len(body)}", f"x-request-id: {refused.request_id}"} <= set(lines)
    assert ("retry-after: 1" in lines) is (status == 503)
    assert json.loads(body) == {"error": {"message": "why", "type": kind, "param": None, "code": code}}
