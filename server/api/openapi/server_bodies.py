"""Answers about models and the server itself."""

from __future__ import annotations

from typing import Literal

from server.api.openapi.body import ABSENT, Body, Count, JsonObject, UnixTime
from server.types import ModelKind, ModelState


class Loading(Body):
    fraction: float | None
    remaining_s: float | None
    """as long as the last load took, less what this one has taken"""
    elapsed_s: float


class Model(Body):
    """OpenAI's four fields, what operators and tools want to know besides, and what Xinference's clients look at."""

    id: str
    object: Literal["model"]
    created: UnixTime
    owned_by: str
    kind: ModelKind
    capabilities: list[str]
    context_length: Count | None
    dimensions: Count | None
    state: ModelState
    num_requests: Count
    """in flight, those that wait for the model to load included"""
    memory_bytes: Count | None
    """what its worker held when it was last measured"""
    pinned: bool
    expires_in_s: float | None
    """when it will be unloaded unless somebody asks it; null: never, or not while it is asked"""
    description: str
    aliases: list[str]
    display: JsonObject
    runtime: JsonObject | None
    """what the last load found and chose"""
    model_name: str
    model_type: Literal["LLM", "embedding", "rerank"]
    model_ability: list[str]
    encoded: dict[str, int] = ABSENT
    rag: JsonObject = ABSENT
    loading: Loading = ABSENT
    """while `state` is `loading`"""
    waiting_for: str = ABSENT
    """what keeps the load from going on"""
    error: str = ABSENT
    """why it failed"""


class ModelList(Body):
    object: Literal["list"]
    data: list[Model]


class Alive(Body):
    status: Literal["ok"]


class ReadyModel(Body):
    state: ModelState
    reason: str = ABSENT
    loading: Loading = ABSENT


class Readiness(Body):
    status: Literal["ready", "not_ready", "draining"]
    models: dict[str, ReadyModel]


class Reload(Body):
    object: Literal["reload"]
    added: list[str]
    removed: list[str]
    replaced: list[str]
    """models that another worker serves now"""
    updated: list[str]
    """models of which changed only what no worker looks at"""
    unchanged: list[str]
    failed: dict[str, str]
    """models that cannot be loaded, and why"""
    kept: list[str]
    """those of them that go on as they were"""
    needs_restart: list[str]
    """settings that changed, and are not in force before the server is started anew"""


class LogLine(Body):
    number: Count
    at: float
    """Unix time"""
    model: str
    text: str


class LogLines(Body):
    object: Literal["list"]
    data: list[LogLine]
    last: Count
    """what to give as `after` for those that follow"""


class Version(Body):
    version: str
