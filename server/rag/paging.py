"""OpenAI's cursor paging: lists go from one named object to the next page, newest first unless asked otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MAX_LIMIT = 100
"""Of one page, as OpenAI has it. Whoever reads a request checks it."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """Which part of a list is wanted.

    Attributes:
        after: Id of the object that the page follows, in the list's order; it may have been deleted since.
        before: Id of the object that the page ends before. With `before` alone it is the page just before that one.
    """

    limit: int = 20
    order: Literal["asc", "desc"] = "desc"
    after: str | None = None
    before: str | None = None


FIRST_PAGE = Page()
