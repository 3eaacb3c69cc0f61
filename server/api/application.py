"""The ASGI application: routes, middleware and error handlers around the services."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Lifespan

from server.access.failed_tries import FailedTries
from server.access.key_limiter import KeyLimiter
from server.access.policy import AccessPolicy
from server.api.access import guard
from server.api.errors import exception_handlers
from server.api.middleware.access_log import AccessLogMiddleware
from server.api.middleware.asker import AskerMiddleware
from server.api.middleware.authentication import AuthenticationMiddleware
from server.api.middleware.browser_guard import BrowserGuardMiddleware
from server.api.middleware.crash_guard import CrashGuardMiddleware
from server.api.middleware.drain import Drain, DrainMiddleware
from server.api.middleware.key_limits import KeyLimitsMiddleware
from server.api.middleware.metering import MeteringMiddleware
from server.api.middleware.request_id import RequestIdMiddleware
from server.api.routes import HEALTH_PATHS, QUIET_PATHS, READY_PATHS, build_routes
from server.config.server_section import Limits
from server.services import Services
from server.telemetry.tracing import Tracing

EXPOSED_HEADERS = (
    *("x-request-id", "retry-after", "retry-after-ms", "server-timing"),
    *(f"x-ratelimit-{what}-{of}" for what in ("limit", "remaining", "reset") for of in ("requests", "tokens")),
)
"""What pages of allowed origins may read."""

PREFLIGHT_S = 600
"""Browsers ask so seldom again whether a page may use this server."""


def build_api(
    services: Services,
    limits: Limits,
    lifespan: Lifespan[Starlette] | None = None,
    policy: AccessPolicy | None = None,
    *,
    limiter: KeyLimiter | None = None,
    sender_header: str = "x-hearth-sender",
    tracing: Tracing | None = None,
) -> Starlette:
    """Join services and HTTP. `lifespan` runs around the time in which requests are served; `state.drain` ends it.

    Args:
        policy: Who is let in; default: anybody, as on a server without keys.
        limiter: Holds keys to their limits; default: one that finds nothing in any ledger, and everything free.
        sender_header: In which clients say for whom they ask.
        tracing: None: no traces are made.
    """
    policy, drain = policy or AccessPolicy(), Drain()
    app = Starlette(
        routes=guard(build_routes(services, limits)),
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
            Middleware(BrowserGuardMiddleware, policy=policy),
            *_cors(policy),
            Middleware(AuthenticationMiddleware, policy=policy, tries=FailedTries()),
            Middleware(DrainMiddleware, drain, ready_paths=READY_PATHS, open_paths=HEALTH_PATHS),
            Middleware(AskerMiddleware),
            Middleware(KeyLimitsMiddleware, limiter=limiter or KeyLimiter()),
        ],
        exception_handlers=exception_handlers(),
        lifespan=lifespan,
    )
    # A redirect would repeat the client's Host header; `/v1/models/` is simply not a route.
    app.router.redirect_slashes = False
    app.state.drain = drain
    return app


def _cors(policy: AccessPolicy) -> list[Middleware]:
    """Answers to browsers for pages that are allowed; without credentials, as keys go in headers, and not in cookies.

    Before authentication, as browsers ask without a key whether they may send one.
    """
    if not policy.allowed_origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=sorted(policy.allowed_origins),
            allow_methods=("GET", "POST", "DELETE"),
            allow_headers=("*",),
            expose_headers=EXPOSED_HEADERS,
            max_age=PREFLIGHT_S,
        )
    ]
