from __future__ import annotations

from pathlib import Path

import pytest

from server.errors import InvalidRequest
from server.rag.beir import Passage, read_corpus, read_judgements

QUERIES = '{"_id": "q1", "text": "what is a wing"}\n\n{"_id": 2, "text": "what is drag"}\n'


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_corpus_keeps_its_order(tmp_path: Path) -> None:
    corpus = written(tmp_path / "corpus.jsonl", '{"_id": 0, "title": "A", "text": ""}\n{"_id": "b", "text": "two"}\n')

    assert read_corpus(corpus) == [Passage("0", "A", ""), Passage("b", "", "two")]


@pytest.mark.parametrize(
    "qrels",
    [
        "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td 2\t0\n2\td1\t1\nq9\td1\t1\n",
        "q1\td1\t2\nq1\td 2\t0\n2\td1\t1\n",
        "q1\t0\td1\t2\nq1\t0\td 2\t0\n2\t0\td1\t1\n",
    ],
    ids=["with a header", "without", "four columns"],
)
def test_judgements_are_of_the_queries_that_there_are(tmp_path: Path, qrels: str) -> None:
    judgements = read_judgements(written(tmp_path / "queries.jsonl", QUERIES), written(tmp_path / "qrels.tsv", qrels))

    assert judgements.judged == {"q1": "what is a wing", "2": "what is drag"}
    assert judgements.gains == {"q1": {"d1": 2, "d 2": 0}, "2": {"d1": 1}}


@pytest.mark.parametrize(
    ("queries", "qrels", "said"),
    [
        ('{"_id": "q1"}', "", 'queries.jsonl, line 1: expected an object with "_id" and "text"'),
        ("[]", "", "queries.jsonl, line 1"),
        (QUERIES + "{", "", "queries.jsonl, line 4: not JSON"),
        (QUERIES, "q1\td1\t1\nq1\td2\n", "qrels.tsv, line 2: expected query id"),
        (QUERIES, "q1\td1\t0.5\nq1\td1\t0.5\n", "qrels.tsv, line 2"),
        (QUERIES, "q7\td1\t1\n", "qrels.tsv judges no query of queries.jsonl"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, queries: str, qrels: str, said: str) -> None:
    paths = written(tmp_path / "queries.jsonl", queries), written(tmp_path / "qrels.tsv", qrels)

    with pytest.raises(InvalidRequest) as caught:
        read_judgements(*paths)

    assert said in caught.value.message


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="cannot be read"):
        read_corpus(tmp_path / "none.jsonl")
