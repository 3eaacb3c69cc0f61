"""Keeps pages of other sites from using this server through the browser of somebody who can reach it.

Two ways lead there. A page sends requests across sites: these say where they come from (`Origin`, `Sec-Fetch-Site`,
which no page can forge), and are refused, whatever their method. Or a page's own name is given this server's address:
then they say nothing, but ask for a host that is not ours. What no browser sends has neither header, and passes.
"""

from __future__ import annotations

import re

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from server.access.policy import AccessPolicy
from server.api.access import OPEN_PATHS
from server.api.errors import error_response
from server.errors import Forbidden

_HOST = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::\d{1,5})?")


class BrowserGuardMiddleware:
    def __init__(self, app: ASGIApp, policy: AccessPolicy) -> None:
        self._app = app
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                self._check(scope, Headers(scope=scope))
            except Forbidden as exc:
                await error_response(exc, scope)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope, headers: Headers) -> None:
        if self._policy.checks_hosts:
            self._check_hosts(headers.getlist("host"))
        if not self._is_of_ours(headers) and not _is_visit(scope, headers):
            origin = headers.get("origin", "another site")[:100]
            raise Forbidden(
                f"a page of {origin!r} may not use this server; add it to server.allowed_origins",
                code="origin_not_allowed",
            )

    def _check_hosts(self, hosts: list[str]) -> None:
        """HTTP/1.0 needs none; no browser speaks it."""
        for host in hosts:
            parts = _HOST.fullmatch(host)
            name = (parts["v6"] or parts["name"]) if parts else None
            if name is None or len(hosts) > 1 or not self._policy.knows_host(name):
                raise Forbidden(
                    f"this server does not go by the name {host[:100]!r}; use localhost or its address, or add the "
                    "name to server.allowed_hosts",
                    code="host_not_allowed",
                )

    def _is_of_ours(self, headers: Headers) -> bool:
        """Whether no page sends it, or one of this server, or one that is allowed to."""
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if origin in self._policy.allowed_origins:
            return True
        if site is not None:
            return site in ("same-origin", "none")
        return origin is None or origin.partition("://")[2] == headers.get("host")


def _is_visit(scope: Scope, headers: Headers) -> bool:
    """Somebody follows a link to a page that tells nobody's secrets; whoever made the link does not see it."""
    return (
        scope["method"] == "GET"
        and scope["path"] in OPEN_PATHS
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
    )
