from __future__ import annotations

from itertools import islice

from benchmarks.python_docs import passages, python_documents


def test_pages_are_whole_and_no_part_of_each_other() -> None:
    documents = python_documents()

    assert "compound.txt" in documents and "with.txt" not in documents  # which is a section of it
    assert sum(map(len, documents.values())) > 300_000


def test_passages_are_of_the_documents_and_differ_by_seed() -> None:
    documents = {"a.txt": "one two  three\nfour five six seven eight nine ten eleven twelve"}
    words = " ".join(documents["a.txt"].split())

    first, again, other = (list(islice(passages(documents, seed=seed), 20)) for seed in (1, 1, 2))

    assert first == again != other
    assert all(passage in words and 5 <= len(passage.split()) <= 10 for passage in first)
