"""A request's claim on the limits of its key: made before its body is read, completed when that is understood."""

from __future__ import annotations

from starlette.requests import HTTPConnection
from starlette.types import Scope

from server.access.key_limiter import Claim
from server.api.schemas.wire import WireModel
from server.api.token_estimate import expected_of


def set_claim(scope: Scope, claim: Claim) -> None:
    scope["state"]["claim"] = claim


def claim_tokens(connection: HTTPConnection, body: WireModel, size_bytes: int) -> None:
    """Reserve what this body may take, if the request's key has limits.

    Raises:
        LimitExceeded: The key does not have so much left.
    """
    claim = connection.scope.get("state", {}).get("claim")
    if claim is None:
        return
    assert isinstance(claim, Claim)
    if (expected := expected_of(body, size_bytes)) is not None:
        claim.reserve(expected)
