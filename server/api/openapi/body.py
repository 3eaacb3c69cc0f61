"""The base of all shapes of answers, and the shape of errors.

Nobody makes instances of these: answers are written as dicts, and the tests hold every one of them against its shape.
Answers may have more fields than their shape; none of its fields is missing but those that are `ABSENT`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=0)]
UnixTime = Annotated[int, Field(ge=0)]
JsonObject = dict[str, Any]
ABSENT: Any = Field(default_factory=lambda: None)
"""In place of a default: the field may be missing."""


class Body(BaseModel):
    """A JSON object that this server sends."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class Error(Body):
    message: str
    """what happened, with which value, and what to do"""
    type: Literal["invalid_request_error", "rate_limit_error", "insufficient_quota", "server_error"]
    param: str | None
    """the field of the request at fault"""
    code: str


class ErrorBody(Body):
    error: Error
    detail: str = ABSENT
    """of an unknown model, and of rerank: the message once more, for clients that look here"""


class Deleted(Body):
    id: str
    object: str
    deleted: Literal[True]
