"""The ASGI application: routes, middleware and error handlers around the services."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.types import Lifespan

from server.api.errors import exception_handlers
from server.api.middleware.access_log import AccessLogMiddleware
from server.api.middleware.crash_guard import CrashGuardMiddleware
from server.api.middleware.metering import MeteringMiddleware
from server.api.middleware.request_id import RequestIdMiddleware
from server.api.routes import QUIET_PATHS, build_routes
from server.config.schema import Limits
from server.services import Services
from server.telemetry.tracing import Tracing


def build_api(
    services: Services,
    limits: Limits,
    lifespan: Lifespan[Starlette] | None = None,
    *,
    sender_header: str = "x-hearth-sender",
    tracing: Tracing | None = None,
) -> Starlette:
    """Join services and HTTP. `lifespan` runs around the time in which requests are served.

    Args:
        sender_header: In which clients say for whom they ask.
        tracing: None: no traces are made.
    """
    app = Starlette(
        routes=build_routes(services, limits),
        middleware=[
            Middleware(RequestIdMiddleware),
            Middleware(AccessLogMiddleware, quiet_paths=QUIET_PATHS),
            Middleware(
                MeteringMiddleware,
                register=services.requests,
                sender_header=sender_header,
                tracing=tracing,
                quiet_paths=QUIET_PATHS,
            ),
            Middleware(CrashGuardMiddleware),
        ],
        exception_handlers=exception_handlers(),
        lifespan=lifespan,
    )
    # A redirect would repeat the client's Host header; `/v1/models/` is simply not a route.
    app.router.redirect_slashes = False
    return app
