"""What the head of a request may be, beyond what the parser takes care of.

llhttp, in its strict mode, refuses what has been used to smuggle requests past proxies: Content-Length beside
Transfer-Encoding, twice, or as no number; bare line feeds and carriage returns; folded lines; blanks before colons;
NUL; broken chunks. What it lets pass, and some proxy might read in another way than we do, is refused here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus

from server.api.refusal import Refusal

MAX_HEAD_BYTES = 64 * 1024
"""Of request line and headers together. Browsers and proxies send 2 KiB, tracing and cookies may add some more."""

MAX_HEADERS = 128
MAX_TARGET_BYTES = 8 * 1024

Headers = Sequence[tuple[bytes, bytes]]
"""Names in lower case."""

_VERSIONS = ("1.1", "1.0")
_HOST = re.compile(rb"(?:[\w.~-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?", re.ASCII)


def check_head(method: bytes, target: bytes, version: str, headers: Headers) -> None:
    """Raise the Refusal that a request line with these headers deserves."""
    if version not in _VERSIONS:
        raise Refusal(HTTPStatus.BAD_REQUEST, f"this is HTTP/{version}; send HTTP/1.1")
    _check_target(method, target)
    check_size(target, headers)
    _check_host([value for name, value in headers if name == b"host"], version)
    _check_framing([value for name, value in headers if name == b"transfer-encoding"], version)


def check_size(target: bytes, headers: Headers) -> None:
    """Raise a Refusal when a head, or what has come of it, is larger than any may be."""
    if len(target) > MAX_TARGET_BYTES:
        raise Refusal(HTTPStatus.REQUEST_URI_TOO_LONG, f"the request line is longer than {MAX_TARGET_BYTES} bytes")
    if len(headers) > MAX_HEADERS:
        raise Refusal(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
            f"the request has {len(headers)} headers; send {MAX_HEADERS} at most",
        )
    if sum(len(name) + len(value) for name, value in headers) > MAX_HEAD_BYTES:
        raise headers_too_large()


def headers_too_large() -> Refusal:
    message = f"the headers are larger than {MAX_HEAD_BYTES} bytes; send less"
    return Refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, message)


def _check_target(method: bytes, target: bytes) -> None:
    """Only paths: the other forms are for proxies, and what names a host besides `Host` can contradict it."""
    if method == b"CONNECT" or not target.startswith(b"/"):
        raise Refusal(HTTPStatus.BAD_REQUEST, "the request line names no path; this server is no proxy")
    if b"#" in target:
        raise Refusal(HTTPStatus.BAD_REQUEST, "the request line has a fragment (#); leave it out")


def _check_host(hosts: Sequence[bytes], version: str) -> None:
    if len(hosts) > 1 or (not hosts and version == "1.1"):
        raise Refusal(HTTPStatus.BAD_REQUEST, f"the request has {len(hosts)} Host headers; send one")
    if hosts and not _HOST.fullmatch(hosts[0]):
        raise Refusal(HTTPStatus.BAD_REQUEST, "the Host header is no host name with or without a port")


def _check_framing(encodings: Sequence[bytes], version: str) -> None:
    """Chunks, or none: what else is chained before them (`gzip, chunked`) nobody here would undo."""
    if not encodings:
        return
    if version != "1.1":
        raise Refusal(HTTPStatus.BAD_REQUEST, f"HTTP/{version} has no Transfer-Encoding; send a Content-Length")
    if [encoding.strip().lower() for encoding in encodings] != [b"chunked"]:
        raise Refusal(HTTPStatus.BAD_REQUEST, "the only Transfer-Encoding here is 'chunked'; send the body as it is")
