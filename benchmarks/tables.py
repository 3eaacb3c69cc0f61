"""What the tables of docs/performance.md have in common: the marks that they stand between, their cells, numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from benchmarks.bars import Bar, Role, spread_of
from benchmarks.results import Section

PAGE = Path(__file__).resolve().parents[1] / "docs" / "performance.md"

NOT_YET = "Not measured yet.\n"

_TABLE = re.compile(r"<!-- ([a-z-]+) -->\n.*?<!-- end -->", re.DOTALL)


def refill(page: str, makers: Mapping[str, Callable[[], str]]) -> str:
    """Return the page, with what stands between `<!-- name -->` and `<!-- end -->` made anew by the maker so named."""

    def made_anew(mark: re.Match[str]) -> str:
        name = mark[1]
        return f"<!-- {name} -->\n{makers[name]()}<!-- end -->" if name in makers else mark[0]

    return _TABLE.sub(made_anew, page)


def fill(page: str, results: Section, makers: Mapping[str, tuple[Callable[[Section], str], str]]) -> str:
    """Return the page with each table made anew from its section of the results, or saying that there is none.

    Args:
        makers: By name of the table: what makes it, and of which section.
    """

    def made(name: str) -> str:
        make, section = makers[name]
        return make(results[section]) if section in results else NOT_YET

    return refill(page, {name: partial(made, name) for name in makers})


def spread_cell(loads: Section, bar: Bar, role: Role) -> str:
    """Median and extremes, with a unit where it is a time or a share; or why there are none."""
    values = spread_of(loads, bar, role)
    if values is None:
        rejected = loads.get(bar.load, {}).get("servers", {}).get(role, {}).get("rejected")
        return "cannot take part" if rejected else "not measured"
    factor, unit = bar.scale
    return spread_text(values, factor=factor, unit=unit)


def spread_text(values: Mapping[str, float], *, factor: float = 1, unit: str = "") -> str:
    """Median and extremes, as `spread` gives them."""
    median, least, most = (significant(factor * values[name]) for name in ("median", "min", "max"))
    return f"{median}{unit} ({least} to {most})"


def bar_row(label: str, held: Section | None, *, unit: str = "") -> tuple[str, ...]:
    """What was measured, required and reached, as `held_to` gives it; None: it was not measured."""
    if held is None:
        return label, "not measured", "", ""
    bound = f">= {held['at_least']:g}" if "at_least" in held else f"<= {held['at_most']:g}"
    return label, f"{significant(held['measured'])}{unit}", f"{bound}{unit}", yes_no(held["is_reached"])


def yes_no(value: bool | None) -> str:
    return {True: "yes", False: "**no**", None: ""}[value]


def significant(value: float) -> str:
    """Three digits, without an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def markdown(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
