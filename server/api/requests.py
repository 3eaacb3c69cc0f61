"""`GET /admin/requests` and `DELETE /admin/requests/{id}`: what the server is doing, for whom, and an end to it."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from server.access.request_register import RequestRegister, RequestView
from server.api.json_response import JsonResponse
from server.api.record import record_of


class RequestEndpoint:
    def __init__(self, register: RequestRegister) -> None:
        self._register = register

    async def list(self, request: Request) -> Response:
        meter = record_of(request).meter
        live = [request_body(view) for view in self._register.live(besides=meter)]
        recent = [request_body(view) for view in self._register.recent()]
        return JsonResponse({"object": "list", "live": live, "recent": recent})

    async def cancel(self, request: Request) -> Response:
        name = str(request.path_params["request_id"])
        num_cancelled = self._register.cancel(name)
        return JsonResponse({"id": name, "object": "request.cancelled", "num_cancelled": num_cancelled})


def request_body(view: RequestView) -> dict[str, Any]:
    return msgspec.structs.asdict(view)
