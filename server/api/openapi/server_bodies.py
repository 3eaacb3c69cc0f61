"""Answers about models and the server itself."""

from __future__ import annotations

from typing import Literal

from server.api.openapi.body import ABSENT, Body, Count, JsonObject, UnixTime
from server.types import ModelKind, ModelState


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


class Readiness(Body):
    status: Literal["ready", "not_ready", "draining"]
    models: dict[str, ReadyModel]


class Version(Body):
    version: str
