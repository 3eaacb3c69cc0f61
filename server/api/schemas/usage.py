"""The query of a usage report."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field

from server.access.usage_rows import Dimension
from server.api.schemas.wire import WireModel, invalid

_DIMENSIONS: tuple[Dimension, ...] = get_args(Dimension)


def _check_dimensions(value: str) -> str:
    names = value.split(",")
    if len(set(names)) < len(names) or not set(names) <= set(_DIMENSIONS):
        raise invalid(f"expected some of {', '.join(_DIMENSIONS)}, with commas between them, each once")
    return value


def _check_moment(value: str) -> str:
    _moment_ms(value)
    return value


def _moment_ms(text: str) -> int:
    """Unix milliseconds of Unix seconds, or of a day or time as ISO 8601 has it; UTC where it does not say."""
    try:
        if text.isascii() and text.isdigit():
            moment = datetime.fromtimestamp(int(text), tz=UTC)
        else:
            moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError, OSError) as exc:
        raise invalid("expected a day (2026-01-31), a time (2026-01-31T12:00:00Z) or Unix seconds") from exc
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


Moment = Annotated[str, Field(max_length=40), AfterValidator(_check_moment)]


class UsageReportQuery(WireModel):
    """`GET /v1/usage`."""

    group_by: Annotated[str, Field(max_length=100), AfterValidator(_check_dimensions)] | None = None
    """any of `model`, `key`, `tenant`, `sender`, `day` (UTC), `kind`, `status`, with commas between them"""
    from_: Annotated[Moment | None, Field(alias="from")] = None
    """a day (`2026-01-31`), a time, or Unix seconds; requests that came then belong to it"""
    to: Moment | None = None
    """the same; requests that came then do not belong to it"""
    tenant: Annotated[str, Field(max_length=256)] | None = None
    """of a key with the scope `admin`: only this tenant; others see their own, whatever this says"""
    format: Literal["json", "csv"] = "json"
    """`csv`, as the header `accept: text/csv`, asks for lines"""

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        names = self.group_by.split(",") if self.group_by else []
        return tuple(dimension for name in names for dimension in _DIMENSIONS if dimension == name)

    @property
    def from_ms(self) -> int | None:
        return None if self.from_ is None else _moment_ms(self.from_)

    @property
    def to_ms(self) -> int | None:
        return None if self.to is None else _moment_ms(self.to)
