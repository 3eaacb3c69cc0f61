"""The record of one HTTP request: its id, and what the canonical log line will say about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import HTTPConnection
from starlette.types import Scope

from server.access.request_meter import RequestMeter
from server.api.timings import timing_of, timing_so_far
from server.api.usage import total_usage
from server.services.generation import ChatEvent
from server.services.grounding import Cited, Sourced
from server.types import Finished, Started, Usage


@dataclass
class RequestRecord:
    """Made by the request id middleware, filled in by the endpoints, written by the access log.

    Attributes:
        request_id: The client's `x-request-id`, or ours.
        model: As the request named it.
        generation_id: What the worker's log calls this request.
        error: Code of the error that the client got, also inside a stream.
        num_sources: Of a grounded answer; 0: nothing relevant was found.
        num_removed_citations: Numbers of an answer that named no source, and did not reach the client.
        server_timing: The header of that name, as far as it is known.
        meter: What models did for it; None of requests that are not measured.
        trace_id: Of the trace that the client says it belongs to.
    """

    request_id: str
    model: str | None = None
    generation_id: str | None = None
    usage: Usage | None = None
    finish_reason: str | None = None
    error: str | None = None
    num_sources: int | None = None
    num_removed_citations: int | None = None
    server_timing: str | None = None
    meter: RequestMeter | None = None
    trace_id: str | None = None

    def note(self, event: ChatEvent) -> None:
        """Take down what an event of a chat says about it."""
        if isinstance(event, Started):
            self.server_timing = self.server_timing or timing_so_far(event)
        elif isinstance(event, Finished):
            self.usage = event.usage
            self.finish_reason = event.reason
            self.server_timing = timing_of(event)
        elif isinstance(event, Sourced):
            self.num_sources = len(event.sources)
        elif isinstance(event, Cited):
            self.num_removed_citations = event.num_removed


def start_record(scope: Scope, request_id: str) -> RequestRecord:
    record = RequestRecord(request_id)
    scope.setdefault("state", {})["record"] = record
    return record


def record_of(connection: HTTPConnection | Scope) -> RequestRecord:
    """The record of this request."""
    record = connection["state"]["record"]
    assert isinstance(record, RequestRecord)
    return record


def note_endings(record: RequestRecord, endings: Sequence[Finished], *, num_siblings: int = 1) -> Usage:
    """All generations of a request have ended; return their usage together.

    Args:
        num_siblings: So many in a row answer the same prompt.
    """
    record.usage = total_usage([ending.usage for ending in endings], num_siblings=num_siblings)
    record.finish_reason = endings[0].reason if len(endings) == 1 else None
    record.server_timing = timing_of(endings[0])
    return record.usage
