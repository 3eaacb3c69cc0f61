"""Postings of texts, as a store has them of its chunks."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from server.rag import postings
from server.rag.postings import Postings
from server.rag.terms import chunk_terms, searched_text


def postings_of(rows: Iterable[tuple[int, str, str]]) -> Postings:
    """Of chunks: id, text, heading."""
    listed = sorted(rows)
    terms = chunk_terms([searched_text(text, heading=heading, columns="", context="") for _, text, heading in listed])
    return postings.postings_of(np.array([chunk_id for chunk_id, _, _ in listed], np.int64), terms)
