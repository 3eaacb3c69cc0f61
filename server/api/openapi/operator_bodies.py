"""Answers to those who run the server: usage, and requests that are live."""

from __future__ import annotations

from typing import Literal

from server.access.request_meter import Stage
from server.api.openapi.body import ABSENT, Body, Count


class UsageGroup(Body):
    """One line; of what the report is grouped by, it has a field each."""

    model: str = ABSENT
    key: str | None = ABSENT
    tenant: str = ABSENT
    sender: str | None = ABSENT
    day: str = ABSENT
    kind: str = ABSENT
    status: str = ABSENT
    num_requests: Count
    num_failed: Count
    prompt_tokens: Count
    cached_tokens: Count
    completion_tokens: Count
    cost: float


class UsageReport(Body):
    object: Literal["list"]
    data: list[UsageGroup]


class RequestLine(Body):
    id: str
    request_id: str
    tenant: str
    key_id: str | None
    sender: str | None
    path: str
    model: str | None
    stage: Stage
    status: str | None
    """how it ended; null while it runs"""
    at_ms: Count
    age_ms: float
    queue_ms: float | None
    ttft_ms: float | None
    prompt_tokens: Count
    completion_tokens: Count


class RequestList(Body):
    object: Literal["list"]
    live: list[RequestLine]
    recent: list[RequestLine]


class RequestsCancelled(Body):
    id: str
    object: Literal["request.cancelled"]
    num_cancelled: Count
