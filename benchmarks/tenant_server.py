"""A Hearth server for benchmarks of fairness: whose a request is, a header says, in place of a key.

python -m benchmarks.tenant_server CONFIG PORT
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import uvicorn
import uvloop
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from server.api.tenant import set_caller
from server.app import build_app
from server.caller import Caller
from server.cli.settings import cache_dir
from server.config.load import load_config
from server.models.weights import WeightsStore
from server.telemetry.logs import configure_logs
from server.types import DEFAULT_TENANT

TENANT_HEADER = "x-tenant"
BACKLOG = 2048


class TenantByHeader:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            set_caller(scope, Caller(tenant=Headers(scope=scope).get(TENANT_HEADER, DEFAULT_TENANT)))
        await self._app(scope, receive, send)


async def run(config: Path, port: int) -> None:
    settings = load_config(config, environ={}, require_files=False).config
    configure_logs("warning", "text")
    app = build_app(settings, WeightsStore(settings.server.weights_dir, cache_dir()))
    options = uvicorn.Config(
        TenantByHeader(app), port=port, http="httptools", log_config=None, access_log=False, backlog=BACKLOG
    )
    await uvicorn.Server(options).serve()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(Path(sys.argv[1]), int(sys.argv[2])))
