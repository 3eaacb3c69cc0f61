"""`POST /admin/reload` and `GET /admin/logs`: for whoever runs the server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import Response

from server.api.json_response import JsonResponse
from server.api.query import read_query
from server.api.schemas.admin import LogQuery
from server.services.loading import LoadingService
from server.services.reloading import ReloadReport


class AdminEndpoint:
    def __init__(self, loading: LoadingService, reload: Callable[[], Awaitable[ReloadReport]]) -> None:
        self._loading = loading
        self._reload = reload

    async def reload(self, _request: Request) -> Response:
        """Answers when every model has got where it was to go, which takes as long as they take to load."""
        return JsonResponse({"object": "reload", **asdict(await self._reload())})

    async def logs(self, request: Request) -> Response:
        query = read_query(request, LogQuery)
        lines = self._loading.lines(query.model, after=query.after, limit=query.limit)
        data = [{"number": line.number, "at": line.at, "model": line.model_id, "text": line.text} for line in lines]
        return JsonResponse({"object": "list", "data": data, "last": lines[-1].number if lines else query.after})
