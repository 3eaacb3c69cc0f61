"""Is the process alive, are the models ready, which version is it. No keys needed, no worker is asked."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from server.api.json_response import JsonResponse
from server.api.models import progress_body
from server.services.models import ModelService, ModelView


class HealthEndpoint:
    def __init__(self, service: ModelService, version: str) -> None:
        self._service = service
        self._version = version

    async def live(self, _request: Request) -> Response:
        """200 as long as the event loop runs, whatever the models do."""
        return JsonResponse({"status": "ok"})

    async def ready(self, _request: Request) -> Response:
        """200 when every model that should be loaded can answer, else 503; either way with the models one by one."""
        readiness = self._service.readiness()
        body = {
            "status": "ready" if readiness.is_ready else "not_ready",
            "models": {view.id: _state(view) for view in readiness.models},
        }
        if readiness.is_ready:
            return JsonResponse(body)
        return JsonResponse(body, status_code=503, headers={"retry-after": "5"})

    async def version(self, _request: Request) -> Response:
        return JsonResponse({"version": self._version})


def _state(view: ModelView) -> dict[str, Any]:
    body: dict[str, Any] = {"state": view.state}
    if reason := view.failure or view.waiting_for:
        body["reason"] = reason
    if view.progress is not None:
        body["loading"] = progress_body(view.progress)
    return body
