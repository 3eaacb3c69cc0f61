"""The ASGI application: routes, middleware and error handlers around the services."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.types import Lifespan

from server.access.key_limiter import KeyLimiter
from server.api.errors import exception_handlers
from server.api.middleware.access_log import AccessLogMiddleware
from server.api.middleware.asker import AskerMiddleware
from server.api.middleware.crash_guard import CrashGuardMiddleware
from server.api.middleware.key_limits import KeyLimitsMiddleware, UsedBy, used_by_record
from server.api.middleware.request_id import RequestIdMiddleware
from server.api.routes import HEALTH_PATHS, build_routes
from server.config.schema import Limits
from server.services import Services


def build_api(
    services: Services,
    limits: Limits,
    lifespan: Lifespan[Starlette] | None = None,
    *,
    limiter: KeyLimiter | None = None,
    used_by: UsedBy = used_by_record,
) -> Starlette:
    """Join services and HTTP. `lifespan` runs around the time in which requests are served.

    Args:
        limiter: Holds keys to their limits; default: one that finds nothing in any ledger, and everything free.
        used_by: What requests have used.
    """
    app = Starlette(
        routes=build_routes(services, limits),
        middleware=[
            Middleware(RequestIdMiddleware),
            Middleware(AccessLogMiddleware, quiet_paths=HEALTH_PATHS),
            Middleware(CrashGuardMiddleware),
            # Whoever finds out who asks stands here.
            Middleware(AskerMiddleware),
            Middleware(KeyLimitsMiddleware, limiter=limiter or KeyLimiter(), used_by=used_by),
        ],
        exception_handlers=exception_handlers(),
        lifespan=lifespan,
    )
    # A redirect would repeat the client's Host header; `/v1/models/` is simply not a route.
    app.router.redirect_slashes = False
    return app
