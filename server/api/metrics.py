"""`GET /metrics`, for Prometheus."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from server.telemetry.metrics import CONTENT_TYPE, Metrics


class MetricsEndpoint:
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def page(self, _request: Request) -> Response:
        """In a thread: it reads files of /proc, and takes milliseconds where there are many models."""
        page = await asyncio.to_thread(self._metrics.page)
        return Response(page, headers={"content-type": CONTENT_TYPE})
