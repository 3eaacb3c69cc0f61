"""The ASGI application: routes, middleware and error handlers around the services."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.types import Lifespan

from server.api.errors import exception_handlers
from server.api.middleware.access_log import AccessLogMiddleware
from server.api.middleware.crash_guard import CrashGuardMiddleware
from server.api.middleware.drain import Drain, DrainMiddleware
from server.api.middleware.request_id import RequestIdMiddleware
from server.api.routes import HEALTH_PATHS, READY_PATHS, build_routes
from server.config.schema import Limits
from server.services import Services


def build_api(services: Services, limits: Limits, lifespan: Lifespan[Starlette] | None = None) -> Starlette:
    """Join services and HTTP. `lifespan` runs around the time in which requests are served; `state.drain` ends it."""
    drain = Drain()
    app = Starlette(
        routes=build_routes(services, limits),
        middleware=[
            Middleware(RequestIdMiddleware),
            Middleware(AccessLogMiddleware, quiet_paths=HEALTH_PATHS),
            Middleware(CrashGuardMiddleware),
            Middleware(DrainMiddleware, drain, ready_paths=READY_PATHS, open_paths=HEALTH_PATHS),
        ],
        exception_handlers=exception_handlers(),
        lifespan=lifespan,
    )
    # A redirect would repeat the client's Host header; `/v1/models/` is simply not a route.
    app.router.redirect_slashes = False
    app.state.drain = drain
    return app
