from __future__ import annotations

from benchmarks.sizing import PAGE, sizing_table
from benchmarks.tables import refill


def test_the_table_in_the_docs_is_what_the_estimator_says() -> None:
    page = PAGE.read_text(encoding="utf-8")

    assert "<!-- sizing -->" in page
    assert page == refill(page, {"sizing": sizing_table}), "run: python -m benchmarks.sizing"


def test_no_speed_is_claimed_that_was_not_measured() -> None:
    rows = sizing_table().splitlines()[2:]

    assert rows
    assert all(row.endswith("| not measured yet |") for row in rows)
