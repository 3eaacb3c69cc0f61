"""Hostile requests whose body is too large, is none, or is no JSON: B1 to B3 of docs/security.md."""

from __future__ import annotations

import json
import random

from benchmarks.hostile_requests import CHATS, JSON_TYPE, REFUSED, SERVED, VALID, Hostile, Maker, any_path

# ---- B1: sizes


def _lying_length(chance: random.Random) -> Hostile:
    length = chance.choice(["-1", "1e9", "99999999999999999999", "2147483648", "0x10", "many", "+5", "\xb2"])
    head = f"POST {any_path(chance)} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    raw = f"{head}Content-Length: {length}\r\nConnection: close\r\n\r\n{{}}".encode("latin-1")
    return Hostile("B1", "", raw, (400, 413), is_raw=True)


def _bad_chunks(chance: random.Random) -> Hostile:
    head = f"POST {any_path(chance)} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    chunks = chance.choice(
        ["zz\r\n{}\r\n", "-5\r\n{}\r\n0\r\n\r\n", "ffffffffffffffffff\r\n{}", "2\r\n{}xx\r\n0\r\n\r\n"]
    )
    raw = f"{head}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n{chunks}".encode()
    return Hostile("B1", "", raw, REFUSED, is_raw=True)


def _huge_body(chance: random.Random) -> Hostile:
    return Hostile("B1", any_path(chance), chance.choice([b" ", b"\0", b"["]) * (33 << 20), (413,))


def _other_encoding(chance: random.Random) -> Hostile:
    headers = {**JSON_TYPE, "content-encoding": chance.choice(["gzip", "br", "deflate, gzip", "zstd", "x" * 5000])}
    return Hostile("B1", any_path(chance), b"\x1f\x8b" + chance.randbytes(64), (415,), headers)


def _other_type(chance: random.Random) -> Hostile:
    kind = chance.choice(["text/plain", "application/x-www-form-urlencoded", "application/xml", "", "x" * 3000])
    return Hostile("B1", any_path(chance), b"{}", (415,), {"content-type": kind})


# ---- B2, B3: JSON


def _deep(chance: random.Random) -> Hostile:
    depth = chance.choice([101, 120, 1_000, 20_000, 250_000])
    opening, closing = chance.choice([(b"[", b"]"), (b'{"a":', b"}")])
    body = opening * depth + b"1" + closing * chance.choice([depth, 0])
    return Hostile("B2", any_path(chance), chance.choice([body, b'{"metadata":' + body + b"}"]))


def _deep_enough(chance: random.Random) -> Hostile:
    depth = chance.choice([50, 97])
    body = json.dumps(VALID[CHATS])[:-1] + ',"metadata":{"a":' + "[" * depth + "]" * depth + "}}"
    return Hostile("B2", CHATS, body.encode(), SERVED)


NOT_JSON: tuple[bytes, ...] = (
    *(b"", b" ", b"{", b"}", b"[", b"]", b"nul", b"tru", b"nonsense", b"{]", b"[}", b'{"a"}', b'{"a":}', b'{"a":1,}'),
    *(b"[1,]", b"[,1]", b"[1,,2]", b"[1 2]", b'["a" "b"]', b'{"a":1 "b":2}', b"{a:1}", b"{'a':1}", b"{1:1}", b"[01]"),
    *(b"[-]", b"[+1]", b"[1.]", b"[.5]", b"[1e]", b"[1e+]", b"[0x10]", b"[1_000]", b"[-01]", b"[--1]", b"[1e1.5]"),
    *(b"[NaN]", b"[Infinity]", b"[-Infinity]", b"[nan]", b"[inf]", b"[1e999]", b"[-1e999]", b"[True]", b"[NULL]"),
    *(b'["\\x41"]', b'["\\u12"]', b'["\\u12G4"]', b'["\\"]', b'["a\nb"]', b'["a\tb"]', b'["\x00"]', b'["\\a"]', b'["'),
    *(b'["\xff"]', b'["\xc3\x28"]', b'["\xed\xa0\x80"]', b'["\xf4\x90\x80\x80"]', b'["\xc0\xaf"]', b'["\\ud800"]'),
    *(
        b'["\\udc00\\ud800"]',
        b"\xef\xbb\xbf{}",
        "{}".encode("utf-16"),
        b"{}{}",
        b"{} x",
        b"[1]]",
        b"//x\n{}",
        b"/**/{}",
    ),
    *(
        b"{#\n}",
        b'{"a":1;}',
        b"<html>",
        b"\x00",
        b"\xff\xfe",
        b'{"a":1' + b"0" * 5000 + b"}",
        b"[" + b"9" * 5000 + b"]",
    ),
)
"""What JSONTestSuite calls `n_`, and what Python's own reader takes but JSON is not."""


def _not_json(chance: random.Random) -> Hostile:
    body = chance.choice(NOT_JSON)
    if chance.random() < 0.5 and body[:1] in b"[":
        body = json.dumps(VALID[CHATS]).encode()[:-1] + b',"stop":' + body + b"}"
    return Hostile("B3", any_path(chance), body)


def _mutilated(chance: random.Random) -> Hostile:
    """A good body, cut short or with a byte that JSON does not have in this place."""
    path = any_path(chance)
    body = bytearray(json.dumps(VALID[path]).encode())
    if chance.random() < 0.5:
        del body[chance.randrange(1, len(body)) :]
    else:
        body[chance.choice([0, len(body) - 1])] = chance.choice(b"\x00\x01\xff#;)")
    return Hostile("B3", path, bytes(body))


ROWS: dict[Maker, float] = {
    _lying_length: 6,
    _bad_chunks: 3,
    _huge_body: 0.2,
    _other_encoding: 4,
    _other_type: 3,
    _deep: 5,
    _deep_enough: 1,
    _not_json: 14,
    _mutilated: 6,
}
"""Kinds of requests, and how often they come."""
