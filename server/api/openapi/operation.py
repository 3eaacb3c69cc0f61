"""What the document says of one route."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from server.api.openapi.body import ErrorBody
from server.api.schemas.wire import WireModel

Topic = Literal["generation", "tokens", "embeddings", "rerank", "files", "vector stores", "models", "usage", "server"]

# Statuses that a route may fail with, by what it does.
BODY = frozenset({400, 413, 415})
MODEL = frozenset({404, 499, 503})
ASKS_MODEL = BODY | MODEL
GENERATES = ASKS_MODEL | {504}
READS = frozenset({404, 500, 503})
WRITES = READS | {507}


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One method of one path.

    Attributes:
        path: As in the route table, but without `:path`.
        summary: What it does, in an imperative sentence.
        body: What the JSON body is validated as; None: it has none.
        form: What the fields of a `multipart/form-data` body are validated as; it holds one file besides.
        query: What the query string is validated as.
        answer: The shape of a 200: any type that pydantic knows; None where it is no JSON.
        events: The shape of each event, where the answer may be a stream.
        media_type: Of a 200 that is no JSON.
        may_go_on: A 202 of the same shape says that it is being done.
        errors: Statuses besides 200; 404 of an unknown path and 405 go without saying, and a 500 that is no storage's
            is a bug.
        error_body: Their shape.
        unready: The shape of a 503, where that is no error.
        example: A body that would be accepted, given these models and objects.
    """

    method: Literal["GET", "POST", "DELETE"]
    path: str
    topic: Topic
    summary: str
    body: type[WireModel] | None = None
    form: type[WireModel] | None = None
    query: type[WireModel] | None = None
    answer: Any = None
    events: Any = None
    media_type: str = "application/json"
    may_go_on: bool = False
    errors: frozenset[int] = frozenset()
    error_body: Any = ErrorBody
    unready: Any = None
    example: dict[str, Any] | None = None

    @property
    def id(self) -> str:
        """Unique, and a name in every language that clients are generated for."""
        return "_".join([self.method.lower(), *"".join(c if c.isalnum() else " " for c in self.path).split()])
