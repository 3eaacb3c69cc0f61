"""The key that a request comes with: `Authorization: Bearer …`, or `x-api-key: …`, which mean the same everywhere."""

from __future__ import annotations

import re

from starlette.datastructures import Headers

from server.errors import Unauthenticated

_KEY = re.compile(r"[!-~]{1,512}")  # visible ASCII


def presented_key(headers: Headers) -> str | None:
    """Return the key; None if there is none. Query strings, cookies and other headers are not looked at.

    Raises:
        Unauthenticated: What is there is no key, or more than one.
    """
    keys = {*map(_bearer, headers.getlist("authorization")), *map(_bare, headers.getlist("x-api-key"))}
    if len(keys) > 1:
        raise Unauthenticated("the request has several keys, which differ; send one")
    return keys.pop() if keys else None


def _bearer(value: str) -> str:
    scheme, _, key = value.strip(" \t").partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthenticated("the Authorization header has no key; send `Authorization: Bearer KEY`")
    return _bare(key)


def _bare(value: str) -> str:
    key = value.strip(" \t")
    if not _KEY.fullmatch(key):
        raise Unauthenticated("the key that was sent cannot be one; send `Authorization: Bearer KEY`")
    return key
