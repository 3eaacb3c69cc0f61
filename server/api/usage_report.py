"""`GET /v1/usage`: who used which model for how much, as JSON or CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from server.access.usage_ledger import UsageLedger
from server.access.usage_rows import MAX_GROUPS, Dimension, UsageGroup, UsageQuery
from server.api.disconnect import run_while_connected
from server.api.json_response import JsonResponse
from server.api.query import read_query
from server.api.schemas.usage import UsageReportQuery
from server.api.tenant import caller_of
from server.caller import Caller
from server.errors import InvalidRequest

CSV = "text/csv; charset=utf-8"

_NUMBERS = ("num_requests", "num_failed", "prompt_tokens", "cached_tokens", "completion_tokens", "cost")


class UsageEndpoint:
    def __init__(self, ledger: UsageLedger) -> None:
        self._ledger = ledger

    async def report(self, request: Request) -> Response:
        wanted = read_query(request, UsageReportQuery)
        query = UsageQuery(
            group_by=wanted.dimensions,
            tenant=_tenant(caller_of(request), wanted.tenant),
            from_ms=wanted.from_ms,
            to_ms=wanted.to_ms,
        )
        groups = await run_while_connected(request.receive, self._ledger.report(query))
        if len(groups) > MAX_GROUPS:
            raise InvalidRequest(
                f"the report has more than {MAX_GROUPS} lines; ask for less time, or group by less", param="group_by"
            )
        if wanted.format == "csv" or "text/csv" in request.headers.get("accept", ""):
            return Response(_csv(wanted.dimensions, groups), headers={"content-type": CSV})
        return JsonResponse({"object": "list", "data": [group_body(group) for group in groups]})


def group_body(group: UsageGroup) -> dict[str, Any]:
    return {**group.values, **{name: getattr(group, name) for name in _NUMBERS}}


def _tenant(caller: Caller, wanted: str | None) -> str | None:
    """Whoever runs the server sees everybody's usage, others their own: of anybody else's there is nothing to see."""
    return wanted if "admin" in caller.scopes else caller.tenant


def _csv(dimensions: Sequence[Dimension], groups: Sequence[UsageGroup]) -> str:
    text = io.StringIO()
    lines = csv.writer(text)
    lines.writerow([*dimensions, *_NUMBERS])
    for group in groups:
        values = [_cell(group.values[name]) for name in dimensions]
        lines.writerow([*values, *(getattr(group, name) for name in _NUMBERS)])
    return text.getvalue()


def _cell(value: str | None) -> str:
    """What a client wrote shall be no formula to whoever opens the file as a spreadsheet."""
    text = value or ""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
