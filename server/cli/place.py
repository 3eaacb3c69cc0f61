"""Where in the documents something stands, on one line."""

from __future__ import annotations


def place(filename: str, page: int | None, heading: str | None) -> str:
    """File, page and headings, as far as they are known."""
    on_page = f", page {page}" if page is not None else ""
    return f"{filename}{on_page}" + (f": {heading}" if heading else "")
