"""What is typed about keys, read: scopes, limits, expiry, models, tenants. A ValueError says what is wrong with it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import get_args

import msgspec

from server.caller import KeyLimits, KeyScope
from server.config.explain import nearest
from server.config.rag_section import RagModel
from server.config.schema import HearthConfig, ModelConfig

SCOPES: tuple[KeyScope, ...] = get_args(KeyScope)

LIMITS = {
    "rpm": "requests_per_minute",
    "tpm": "tokens_per_minute",
    "concurrent": "concurrent_requests",
    "tokens_per_day": "tokens_per_day",
    "cost_per_day": "cost_per_day",
    "weight": "weight",
}
"""As they are typed, and as `KeyLimits` has them."""

_WHOLE = {"rpm", "tpm", "concurrent", "tokens_per_day"}
_MAX = 10**12
_SECONDS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_DURATION = re.compile(r"(\d{1,5})([mhdw])")
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def read_tenant(text: str) -> str:
    if not _TENANT.fullmatch(text):
        raise ValueError(f"tenant is {text!r}; expected up to 64 letters, digits, '.', '_' and '-'")
    return text


def read_scopes(text: str) -> frozenset[KeyScope]:
    scopes: set[KeyScope] = set()
    for name in _split(text):
        scope = next((known for known in SCOPES if known == name), None)
        if scope is None:
            raise ValueError(
                f"scope {name!r} does not exist; expected some of {', '.join(SCOPES)}{nearest(name, SCOPES)}"
            )
        scopes.add(scope)
    if not scopes:
        raise ValueError(f"a key needs a scope; expected some of {', '.join(SCOPES)}")
    return frozenset(scopes)


def read_models(text: str | None, settings: HearthConfig) -> frozenset[str] | None:
    """Ids of models of these ids or aliases; None: all."""
    if text is None:
        return None
    models: list[ModelConfig | RagModel] = [*settings.models, *settings.rag.models]
    ids = {name: model.id for model in models for name in (model.id, *model.aliases)}
    names = _split(text)
    for name in names:
        if name not in ids:
            known = ", ".join(model.id for model in models)
            raise ValueError(f"model {name!r} is not in models.yaml, which has {known}{nearest(name, ids)}")
    if not names:
        raise ValueError("no model is named; leave --models out to allow all")
    return frozenset(ids[name] for name in names)


def read_limits(texts: Iterable[str]) -> KeyLimits:
    limits: dict[str, float] = {}
    for part in _split(",".join(texts)):
        name, _, value = part.partition("=")
        if name not in LIMITS:
            raise ValueError(
                f"limit {name!r} does not exist; expected some of {', '.join(LIMITS)}{nearest(name, LIMITS)}"
            )
        limits[LIMITS[name]] = _amount(name, value)
    return msgspec.convert(limits, KeyLimits)


def show_limits(limits: KeyLimits) -> str:
    """The same, as it would be typed."""
    wanted = msgspec.to_builtins(limits)
    return ", ".join(f"{typed}={wanted[name]:g}" for typed, name in LIMITS.items() if name in wanted)


def read_expiry(text: str | None) -> int | None:
    """Unix seconds of a day (its beginning, UTC), of a time, or of so long from now; None: never."""
    if text is None:
        return None
    now = int(time.time())
    if span := read_span(text):
        return now + span
    try:
        at = datetime.fromisoformat(text)
    except ValueError as exc:
        raise ValueError(f"expiry is {text!r}; expected e.g. 90d, 12h, 2027-01-31 or 2027-01-31T12:00Z") from exc
    expires_at = int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())
    if expires_at <= now:
        raise ValueError(f"expiry is {text!r}, which is over")
    return expires_at


def read_span(text: str) -> int | None:
    """Seconds of e.g. `90d` or `12h`; None of anything else."""
    found = _DURATION.fullmatch(text)
    return int(found[1]) * _SECONDS[found[2]] if found else None


def show_time(seconds: int | None) -> str:
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%MZ")


def _amount(name: str, text: str) -> float:
    try:
        amount = int(text) if name in _WHOLE else float(text)
    except ValueError:
        amount = 0
    if not 0 < amount <= _MAX:
        kind = "a whole number" if name in _WHOLE else "a number"
        raise ValueError(f"limit {name} is {text!r}; expected {kind} above 0")
    return amount


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
