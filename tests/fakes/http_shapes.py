"""Bytes that are no request, or that somebody before us may have read in another way."""

from __future__ import annotations

import re

SECOND = b"GET /second HTTP/1.1\r\nHost: x\r\n\r\n"
"""What follows each shape on the same connection, and must not be answered in its place."""

POST = b"POST /first HTTP/1.1\r\nHost: x\r\n"
GET = b"GET /first HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n"
SHAPES = {
    "content-length and transfer-encoding": CHUNKED + b"Content-Length: 4\r\n\r\n0\r\n\r\n",
    "transfer-encoding and content-length": POST
    + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n",
    "two equal lengths": POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nab",
    "two lengths": POST + b"Content-Length: 2\r\nContent-Length: 40\r\n\r\nab",
    "a list of lengths": POST + b"Content-Length: 2, 2\r\n\r\nab",
    "a length with a sign": POST + b"Content-Length: +2\r\n\r\nab",
    "a negative length": POST + b"Content-Length: -2\r\n\r\nab",
    "a length in hex": POST + b"Content-Length: 0x2\r\n\r\nab",
    "a length beyond numbers": POST + b"Content-Length: 99999999999999999999999\r\n\r\nab",
    "no length": POST + b"Content-Length: \r\n\r\n",
    "xchunked": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked, identity": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "gzip, chunked": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": CHUNKED + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "vertical tab before chunked": POST + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    "blank before the colon": POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": CHUNKED.replace(b"1.1", b"1.0") + b"\r\n0\r\n\r\n",
    "bare line feeds": b"GET /first HTTP/1.1\nHost: x\n\n",
    "a bare line feed": GET[:-2] + b"\nA: b\r\n\r\n",
    "a bare carriage return": GET[:-2] + b"\rA: b\r\n\r\n",
    "no chunk size": CHUNKED + b"\r\nzz\r\nab\r\n0\r\n\r\n",
    "a chunk size with 0x": CHUNKED + b"\r\n0x2\r\nab\r\n0\r\n\r\n",
    "a chunk size beyond numbers": CHUNKED + b"\r\nfffffffffffffffff\r\nab\r\n0\r\n\r\n",
    "chunks with bare line feeds": CHUNKED + b"\r\n2\nab\n0\n\n",
    "a line feed in a chunk extension": CHUNKED + b"\r\n2;a\nb\r\nab\r\n0\r\n\r\n",
    "a chunk longer than it says": CHUNKED + b"\r\n2\r\nabXX0\r\n\r\n",
    "a length in the trailer": CHUNKED + b"\r\n0\r\nContent-Length: 5\r\n\r\n",
    "a folded header": GET + b"A: b\r\n c\r\n\r\n",
    "a folded first header": b"GET /first HTTP/1.1\r\n Host: x\r\n\r\n",
    "HTTP/0.9": b"GET /first\r\n\r\n",
    "HTTP/2.0": b"GET /first HTTP/2.0\r\nHost: x\r\n\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "an absolute URI": b"GET http://evil.example/first HTTP/1.1\r\nHost: x\r\n\r\n",
    "CONNECT": b"CONNECT evil.example:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    "OPTIONS *": b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    "no Host": b"GET /first HTTP/1.1\r\n\r\n",
    "two Hosts": GET + b"Host: y\r\n\r\n",
    "an empty Host": b"GET /first HTTP/1.1\r\nHost: \r\n\r\n",
    "a path in Host": b"GET /first HTTP/1.1\r\nHost: a/v1/models?\r\n\r\n",
    "NUL in a header": GET + b"A: b\x00c\r\n\r\n",
    "a header without a name": GET + b": b\r\n\r\n",
    "a header without a colon": GET + b"abc\r\n\r\n",
    "a header name with brackets": GET + b"A(b): c\r\n\r\n",
    "a fragment": b"GET /first#x HTTP/1.1\r\nHost: x\r\n\r\n",
    "a backslash": b"GET \\first HTTP/1.1\r\nHost: x\r\n\r\n",
    "bytes in the path": b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    "a method of nobody": b"FOO / HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


def statuses(answer: bytes) -> list[int]:
    """Of all answers in what has come; no body here has a status line in it."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]
