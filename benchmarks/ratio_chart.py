"""A picture of verdicts: one bar for each comparison, how many times as good as somebody else Hearth is.

Longer is always better: times are inverted for that. The whisker spans the least and the most favourable pair of
repetitions; the tick is the bar that was to be reached. Needs the extra `bench` (matplotlib).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from benchmarks.bars import Verdict, spread_of
from benchmarks.results import Section
from benchmarks.tables import significant

COLOURS = {True: "#2a7f62", False: "#c8553d", None: "#8a94a0"}
"""By whether the bar is reached; None where nothing was required."""

MEANINGS = {True: "reached", False: "missed", None: "nothing required"}


@dataclass(frozen=True)
class Row:
    """A comparison that has a ratio.

    Attributes:
        label: Left of it, in one or two lines.
        loads: Where its medians are.
    """

    label: str
    verdict: Verdict
    loads: Section


def draw(rows: Sequence[Row], title: str, path: Path) -> None:
    """Write the picture, first row on top."""
    mpl.rcParams.update({"font.size": 9, "font.family": "DejaVu Sans"})
    height = 1.7 + 0.42 * len(rows)
    figure, axes = plt.subplots(figsize=(11, height))
    figure.subplots_adjust(left=0.3, right=0.73, top=1 - 0.5 / height, bottom=0.7 / height)
    figure.suptitle(f"{title}: longer is better; latencies are inverted", y=0.99)
    _frame(axes, rows)
    for place, row in enumerate(rows):
        _draw_bar(axes, place, row.verdict)
        _write_numbers(axes, place, row)
    figure.savefig(path, dpi=130, bbox_inches="tight")
    plt.close(figure)


def _frame(axes: Axes, rows: Sequence[Row]) -> None:
    axes.set_yticks(range(len(rows)), [row.label for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.9)  # the first on top
    axes.set_xscale("log", base=2)
    reach = [
        _times(verdict, ratio)
        for verdict in (row.verdict for row in rows)
        for ratio in (verdict.worst, verdict.best, verdict.bar.bound)
        if ratio
    ]
    axes.set_xlim(min(0.5, 0.9 * min(reach)), max(2, 1.1 * max(reach)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} x")
    axes.grid(axis="x", color="#e3e6ea", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.axvline(1, color="black", linewidth=1)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    handles: list[Artist] = [Patch(color=COLOURS[key], label=meaning) for key, meaning in MEANINGS.items()]
    handles.append(Line2D([], [], color="black", linewidth=2.5, label="required"))
    handles.append(Line2D([], [], color="black", linewidth=1, marker="|", label="spread over repetitions"))
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.4, -0.05), ncols=5, frameon=False)


def _draw_bar(axes: Axes, place: int, verdict: Verdict) -> None:
    assert verdict.ratio and verdict.worst and verdict.best
    times, least, most = (_times(verdict, ratio) for ratio in (verdict.ratio, verdict.worst, verdict.best))
    axes.barh(place, times - 1, left=1, height=0.6, color=COLOURS[verdict.is_reached])
    axes.errorbar(times, place, xerr=[[times - least], [most - times]], color="black", capsize=3, linewidth=1)
    if bound := verdict.bar.bound:
        axes.plot([_times(verdict, bound)] * 2, [place - 0.42, place + 0.42], color="black", linewidth=2.5)


def _write_numbers(axes: Axes, place: int, row: Row) -> None:
    """The ratio and both medians, in columns to the right."""
    verdict = row.verdict
    assert verdict.ratio and verdict.bar.against
    factor, unit = verdict.bar.scale
    medians = [spread_of(row.loads, verdict.bar, role) for role in ("hearth", verdict.bar.against)]
    cells = [
        f"{_times(verdict, verdict.ratio):.2f} x",
        *(significant(factor * each["median"]) + unit for each in medians if each),
    ]
    for x, head, cell in zip((1.14, 1.30, 1.46), ("ratio", "Hearth", "other"), cells, strict=True):
        axes.annotate(cell, (x, place), xycoords=axes.get_yaxis_transform(), ha="right", va="center")
        if place == 0:
            axes.annotate(head, (x, -0.75), xycoords=axes.get_yaxis_transform(), ha="right", color="#5b6673")


def _times(verdict: Verdict, ratio: float) -> float:
    """How many times as good, whatever the figure is."""
    return ratio if verdict.bar.is_rate else 1 / ratio
