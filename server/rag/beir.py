"""Test collections in BEIR's layout: a corpus and queries as JSON lines, judgements as a table with tabs.

Only reads; what is wrong is told with file and line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from server.errors import InvalidRequest
from server.rag.evaluation import Gains, Judgements

Record = dict[str, str]


@dataclass(frozen=True, slots=True)
class Passage:
    """One document of a corpus. `title` may be empty."""

    id: str
    title: str
    text: str


def read_corpus(path: Path) -> list[Passage]:
    """Read `{"_id", "title"?, "text"}`, one a line.

    Raises:
        InvalidRequest: A line is something else.
    """
    return [Passage(record["_id"], record.get("title", ""), record["text"]) for record in _records(path)]


def read_judgements(queries: Path, qrels: Path) -> Judgements:
    """Read queries, `{"_id", "text"}` one a line, and gains: query id, document id, gain, with or without a header.

    TREC's four columns, whose second one means nothing, are read too.

    Raises:
        InvalidRequest: A line is something else, or none of the queries is judged.
    """
    texts = {record["_id"]: record["text"] for record in _records(queries)}
    gains: Gains = {}
    for query_id, document_id, gain in _gains(qrels):
        if query_id in texts:
            gains.setdefault(query_id, {})[document_id] = gain
    found = Judgements({query_id: texts[query_id] for query_id in texts if query_id in gains}, gains)
    if not found.judged:
        raise InvalidRequest(f"{qrels.name} judges no query of {queries.name}; do the two belong together?")
    return found


def _records(path: Path) -> Iterator[Record]:
    for number, line in _lines(path):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as exc:
            raise InvalidRequest(f"{path.name}, line {number}: not JSON ({exc})") from exc
        if not isinstance(record, dict) or None in (record.get("_id"), record.get("text")):
            raise InvalidRequest(f'{path.name}, line {number}: expected an object with "_id" and "text"')
        yield {key: str(record[key]) for key in ("_id", "title", "text") if record.get(key) is not None}


def _gains(path: Path) -> Iterator[tuple[str, str, int]]:
    for number, line in _lines(path):
        match line.split("\t") if "\t" in line else line.split():
            case [query_id, document_id, gain] | [query_id, _, document_id, gain] if _is_whole(gain):
                yield query_id, document_id, int(gain)
            case _ if number > 1:  # the first line may be a header
                raise InvalidRequest(f"{path.name}, line {number}: expected query id, document id and a whole number")


def _is_whole(text: str) -> bool:
    return text.strip().removeprefix("-").isdecimal()


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, with their numbers from 1."""
    try:
        with path.open(encoding="utf-8-sig") as lines:
            yield from ((number, line.rstrip("\r\n")) for number, line in enumerate(lines, start=1) if line.strip())
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidRequest(f"{path} cannot be read: {exc}") from exc
