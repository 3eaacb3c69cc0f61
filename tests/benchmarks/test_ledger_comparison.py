"""The benchmark of the ledger notices what it looks for."""

from __future__ import annotations

import pytest

from benchmarks.ledger import SLACK_PIECES, Row, compare, section_of
from benchmarks.ledger_traffic import Asked

TOLD = Asked("bench-1", "/v1/completions", "told", prompt_tokens=5, completion_tokens=2)


def row(request_id: str = "bench-1", prompt: int = 5, completion: int = 2, *, own_id: str = "use_1") -> Row:
    return Row(own_id, request_id, "completed", prompt, completion)


def test_a_ledger_that_agrees_has_no_problems() -> None:
    assert not any(compare([TOLD], [row()]).problems.values())


@pytest.mark.parametrize(
    ("asked", "rows", "problem"),
    [
        (TOLD, [], "missing"),
        (TOLD, [row(completion=3)], "wrong"),
        (TOLD, [row(), row(own_id="use_2")], "twice"),
        (TOLD, [row(), row("bench-9", own_id="use_2")], "unknown"),
        (Asked("bench-1", "", "failed", num_pieces=3), [row(completion=2)], "too_little"),
        (Asked("bench-1", "", "cut", num_pieces=3), [], "missing"),
        (Asked("bench-1", "", "cut", num_pieces=SLACK_PIECES + 1), [row(completion=0)], "too_little"),
        (Asked("bench-1", "", "refused"), [row()], "wrong"),
    ],
)
def test_what_is_amiss_is_found(asked: Asked, rows: list[Row], problem: str) -> None:
    found = {name for name, ids in compare([asked], rows).problems.items() if ids}

    assert found == {problem}


@pytest.mark.parametrize(("num_requests", "is_reached"), [(1, True), (2, False)])
def test_a_report_that_is_not_the_sum_of_the_ledger_is_found(num_requests: int, is_reached: bool) -> None:
    totals = {"num_requests": 1, "prompt_tokens": 5, "completion_tokens": 2}
    report = {**totals, "num_requests": num_requests, "cost": 0.0}

    section = section_of([TOLD], [row()], report, totals)

    assert section["bars"]["report_differs"]["is_reached"] == is_reached


def test_what_was_cut_may_be_a_second_old() -> None:
    cut = Asked("bench-1", "", "cut", num_pieces=SLACK_PIECES)

    assert not any(compare([cut], [row(completion=0)]).problems.values())
