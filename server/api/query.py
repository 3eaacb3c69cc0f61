"""Read a query string by a schema, and lists by cursors: what `GET` routes share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import ValidationError
from starlette.requests import Request

from server.api.schemas.wire import WireModel
from server.api.validation import to_invalid_request

Schema = TypeVar("Schema", bound=WireModel)


def read_query(request: Request, schema: type[Schema]) -> Schema:
    """The query string as `schema`; an empty value means the default, and of a name that appears twice the last counts.

    Raises:
        InvalidRequest: A name is unknown or a value wrong; `param` names it.
    """
    values = {name: value for name, value in request.query_params.items() if value}
    try:
        return schema.model_validate(values)
    except ValidationError as exc:
        raise to_invalid_request(exc, values, schema) from exc


def list_body(items: Sequence[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    """One page as OpenAI writes it; the next one begins after `last_id`."""
    return {
        "object": "list",
        "data": items,
        "first_id": items[0]["id"] if items else None,
        "last_id": items[-1]["id"] if items else None,
        "has_more": has_more,
    }
