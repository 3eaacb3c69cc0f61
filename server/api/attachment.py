"""Downloads that no browser shows."""

from __future__ import annotations

from urllib.parse import quote

ATTACHMENT_HEADERS = {
    # Whatever a client has uploaded: a browser shall neither guess what it is, nor show or run it.
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; sandbox",
    "accept-ranges": "none",
}


def attachment(name: str) -> str:
    """`content-disposition` that makes a browser save the content and never show it."""
    return f"attachment; filename*=utf-8''{quote(name.rpartition('/')[2], safe='')}"
