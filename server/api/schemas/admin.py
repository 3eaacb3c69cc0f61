"""What operators ask of the server."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from server.api.schemas.wire import ModelName, TextInteger, WireModel


class LogQuery(WireModel):
    model: ModelName | None = None
    """of its worker alone; default: of all"""
    after: Annotated[TextInteger, Field(ge=0)] = 0
    """only lines behind the one of this number"""
    limit: Annotated[TextInteger, Field(ge=1, le=5000)] = 200
    """the newest so many"""
