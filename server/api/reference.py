"""The tables of docs/api.md: every parameter with what becomes of it, made from the schemas that validate; and that of
docs/security.md: every route with what it needs.

`python -m server.api.reference` rewrites them; a test compares them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import orjson
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from server.api.access import scopes_of
from server.api.openapi.operations import OPERATIONS
from server.api.schemas.chat import ChatRequest
from server.api.schemas.completions import CompletionRequest
from server.api.schemas.embeddings import EmbeddingRequest
from server.api.schemas.evaluation import EvaluationRequest
from server.api.schemas.messages import MessageRequest
from server.api.schemas.rerank import RerankRequest
from server.api.schemas.responses import ResponseRequest
from server.api.schemas.tokens import DetokenizeRequest, TokenizeRequest
from server.api.schemas.usage import UsageReportQuery
from server.api.schemas.vector_stores import StoreReindex, StoreSearch
from server.api.schemas.wire import Ignored, Only

SCHEMAS: tuple[type[BaseModel], ...] = (
    ChatRequest,
    ResponseRequest,
    CompletionRequest,
    MessageRequest,
    TokenizeRequest,
    DetokenizeRequest,
    EmbeddingRequest,
    RerankRequest,
    StoreSearch,
    EvaluationRequest,
    StoreReindex,
    UsageReportQuery,
)
"""Those that have a table, in their order, between `<!-- parameters: NAME -->` and `<!-- end -->`."""

_ROUTES = re.compile(r"<!-- routes -->\n.*?<!-- end -->", re.DOTALL)
_TABLE = re.compile(r"<!-- parameters: (\w+) -->\n.*?<!-- end -->", re.DOTALL)


def fill_tables(page: str) -> str:
    """Return docs/api.md with what stands between its table marks made anew."""
    schemas = {schema.__name__: schema for schema in SCHEMAS}
    return _TABLE.sub(lambda mark: f"<!-- parameters: {mark[1]} -->\n{_table(schemas[mark[1]])}<!-- end -->", page)


def fill_routes(page: str) -> str:
    """Return docs/security.md with the table of routes made anew: those that are open first."""
    methods: dict[str, list[str]] = {}
    for operation in OPERATIONS:
        methods.setdefault(operation.path, []).append(operation.method)
    rows = [
        (" or ".join(f"`{scope}`" for scope in scopes_of(path)) or "nothing", f"`{path}`", ", ".join(sorted(its)))
        for path, its in sorted(methods.items(), key=lambda each: (scopes_of(each[0]), each[0]))
    ]
    head = ("Needs", "Path", "Methods"), ("---", "---", "---")
    table = "".join(_line(row) for row in (*head, *rows))
    return _ROUTES.sub(lambda _: f"<!-- routes -->\n{table}<!-- end -->", page)


def status_of(field: FieldInfo) -> str:
    """What becomes of a parameter."""
    for mark in field.metadata:
        if isinstance(mark, Ignored):
            return "ignored"
        if isinstance(mark, Only):
            allowed = " or ".join(f"`{orjson.dumps(value).decode()}`" for value in mark.allowed)
            return f"only {allowed}" if allowed else "refused"
    return "honoured"


def _table(schema: type[BaseModel]) -> str:
    head = ("Parameter", "", ""), ("---", "---", "---")
    return "".join(_line(row) for row in (*head, *_rows(schema)))


def _rows(schema: type[BaseModel]) -> Iterator[tuple[str, ...]]:
    """What is required comes first; the rest as it stands in the schema."""
    for name, field in sorted(schema.model_fields.items(), key=lambda each: not each[1].is_required()):
        yield f"`{field.alias or name}`", status_of(field), " ".join((field.description or "").split())


def _line(cells: tuple[str, ...]) -> str:
    escaped = [cell.replace("|", "\\|") for cell in cells]
    return "".join(f"| {cell} " if cell else "| " for cell in escaped) + "|\n"


if __name__ == "__main__":
    docs = Path(__file__).parents[2] / "docs"
    for page, fill in ((docs / "api.md", fill_tables), (docs / "security.md", fill_routes)):
        page.write_text(fill(page.read_text(encoding="utf-8")), encoding="utf-8")
