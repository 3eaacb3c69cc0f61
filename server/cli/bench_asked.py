"""What a server that is to be measured says of itself: its models, and its version where it tells one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import httpx

from server.cli.settings import fail
from server.loadgen.target import Target
from server.types import ModelKind

_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class AskedServer:
    """Whom the figures are of.

    Attributes:
        version: As `/version` answers; empty where it does not.
        entry: The model's in the server's list; empty where it has none. Hearth's tells how the model runs.
    """

    model: str
    kind: ModelKind
    version: Mapping[str, Any]
    entry: Mapping[str, Any]


def look_at(target: Target, *, model: str | None, kind: ModelKind | None) -> AskedServer:
    """Ask what there is to measure; leave with one line if nobody answers, or the model is not told."""
    with httpx.Client(headers=target.headers, timeout=_TIMEOUT_S, trust_env=False) as http:
        models = _models(http, target, is_needed=model is None)
        version = _version(http, target)
    entry = _chosen(models, model, kind)
    if model is None and not entry:
        what = f"{kind} model" if kind else "model"
        fail(f"the server at {target.url} lists no {what}; name one with --model")
    said = entry.get("kind")
    said_kind: ModelKind = next((each for each in get_args(ModelKind) if each == said), "chat")
    return AskedServer(model or str(entry["id"]), kind or said_kind, version, entry)


def _chosen(models: list[dict[str, Any]], model: str | None, kind: ModelKind | None) -> dict[str, Any]:
    """The entry of the model asked for, else the first of the kind; other servers do not tell kinds."""
    for entry in models:
        if model is not None:
            if model == entry.get("id") or model in (entry.get("aliases") or ()):
                return entry
        elif kind is None or entry.get("kind", kind) == kind:
            return entry
    return {}


def _models(http: httpx.Client, target: Target, *, is_needed: bool) -> list[dict[str, Any]]:
    try:
        response = http.get(f"{target.url}/models")
        if response.status_code == 200:
            return [entry for entry in response.json()["data"] if isinstance(entry, dict)]
    except httpx.HTTPError as exc:
        fail(f"no server answers at {target.url}: {exc or type(exc).__name__}")
    except (ValueError, LookupError, TypeError):
        pass
    if is_needed:
        fail(f"GET {target.url}/models: status {response.status_code} and no list of models; name one with --model")
    return []


def _version(http: httpx.Client, target: Target) -> dict[str, Any]:
    try:
        answer = http.get(f"{target.url.removesuffix('/v1')}/version").json()
    except (httpx.HTTPError, ValueError):
        return {}
    return answer if isinstance(answer, dict) else {}
