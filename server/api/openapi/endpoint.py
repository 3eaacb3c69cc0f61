"""`GET /openapi.json` and `GET /docs`."""

from __future__ import annotations

import asyncio
from functools import cached_property

import orjson
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from server.api.openapi.document import JsonSchema, build_document
from server.api.openapi.page import CONTENT_SECURITY_POLICY, build_page


class DescriptionEndpoint:
    """Made at the first request, in a thread; most servers are never asked."""

    def __init__(self, version: str) -> None:
        self._version = version

    async def document(self, _request: Request) -> Response:
        return Response(await asyncio.to_thread(lambda: self._json), media_type="application/json")

    async def page(self, _request: Request) -> Response:
        headers = {"content-security-policy": CONTENT_SECURITY_POLICY}
        return HTMLResponse(await asyncio.to_thread(lambda: self._page), headers=headers)

    @cached_property
    def _document(self) -> JsonSchema:
        return build_document(self._version)

    @cached_property
    def _json(self) -> bytes:
        return orjson.dumps(self._document)

    @cached_property
    def _page(self) -> str:
        return build_page(self._document)
