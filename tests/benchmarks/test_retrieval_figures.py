from __future__ import annotations

import pytest

pytest.importorskip("bm25s", reason="of the extra `bench`")

from benchmarks.retrieval import bars, blended, words_by_bm25s
from server.rag.beir import Passage
from server.rag.documents import Chunk, Span
from server.rag.evaluation import Judgements, assess
from server.rag.search import Explanation, SearchOutcome, Stage


def chunk(id_: int, name: str) -> Chunk:
    return Chunk(
        id=id_,
        document_id=1,
        file_id="f",
        filename=name,
        ordinal=0,
        text="",
        span=Span(0, 0),
        parent_id=1,
        num_tokens=1,
    )


OUTCOME = SearchOutcome(
    queries=("q",),
    hits=(),
    explanation=Explanation(
        stages=(
            Stage("fused", (1, 2, 3, 4), (1.0, 0.9, 0.8, 0.7)),
            Stage("rerank", (3, 1), (0.9, 0.1)),
            Stage("final", (3, 1, 4), (0.9, 0.8, 0.7)),  # 2 repeats another one
        ),
        chunks={1: chunk(1, "a"), 2: chunk(2, "b"), 3: chunk(3, "c"), 4: chunk(4, "a")},
        dropped={},
    ),
)


@pytest.mark.parametrize(("weight", "names"), [(0.0, ["a", "c"]), (1.0, ["c", "a"])])
def test_another_weight_ranks_otherwise(weight: float, names: list[str]) -> None:
    assert blended(OUTCOME, weight) == names


def test_bm25s_finds_stems() -> None:
    passages = [Passage("1", "", "wings lift"), Passage("2", "", "hot plates"), Passage("3", "", "flow")]

    run = words_by_bm25s(
        [*passages, *(Passage(f"x{n}", "", f"air {n}") for n in range(100))],
        Judgements({"q": "heat of a plate"}, {"q": {"2": 1}}),
    )

    assert run["q"][0] == "2"


def test_bars_compare_with_what_was_measured() -> None:
    judgements = Judgements({"q": "?"}, {"q": {"a": 1}})
    good, bad = assess({"q": ["a"]}, judgements), assess({"q": ["b", "a"]}, judgements)

    found = bars({"fused": good, "final": bad, "lexical": good, "dense": bad, "bm25s": good, "rerank": bad})

    assert {name: bar["is_reached"] for name, bar in found.items()} == {"fused": True, "final": False, "lexical": True}
