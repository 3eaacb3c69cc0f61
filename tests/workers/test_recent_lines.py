"""What workers have logged lately."""

from __future__ import annotations

from server.workers.recent_lines import MAX_CHARS, MAX_LINES, RecentLines


def texts(lines: RecentLines, after: int = 0, *, model_id: str | None = None, limit: int = 100) -> list[str]:
    return [line.text for line in lines.after(after, model_id=model_id, limit=limit)]


def test_lines_are_told_in_order_of_one_model_or_of_all() -> None:
    lines = RecentLines()
    for model_id, text in (("a", "1"), ("b", "2"), ("a", "3")):
        lines.add(model_id, text)

    assert texts(lines) == ["1", "2", "3"]
    assert texts(lines, model_id="a") == ["1", "3"]
    assert texts(lines, model_id="nobody") == []


def test_whoever_follows_gets_each_line_once() -> None:
    lines = RecentLines()
    lines.add("a", "1")
    [seen] = lines.after(0, limit=10)
    lines.add("a", "2")

    assert texts(lines, seen.number) == ["2"]


def test_the_newest_are_kept_and_told_and_a_neighbour_that_talks_much_takes_none_of_them() -> None:
    lines = RecentLines()
    lines.add("quiet", "hello")
    for number in range(MAX_LINES + 5):
        lines.add("loud", str(number))
    lines.add("loud", "x" * (MAX_CHARS + 1))

    assert texts(lines, model_id="quiet") == ["hello"]
    assert len(texts(lines, model_id="loud", limit=10 * MAX_LINES)) == MAX_LINES
    assert texts(lines, limit=2) == [str(MAX_LINES + 4), "x" * MAX_CHARS]
