"""The picture of docs/performance.md, made from benchmarks/results/chat.json. Needs the extra `bench` (matplotlib).

python -m benchmarks.plot                     # after measuring: writes benchmarks/results/chat.png

One bar for each comparison: how many times as good as llama-server Hearth is, so that longer is always better. Times
are inverted for that. The whisker spans the least and the most favourable pair of repetitions; the tick is the bar that
was to be reached.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from benchmarks.chat_bars import BARS, Role, Verdict, judge, spread_of
from benchmarks.chat_loads import LOADS
from benchmarks.chat_table import significant
from benchmarks.results import CHAT, Section, load_results

COLOURS = {True: "#2a7f62", False: "#c8553d", None: "#8a94a0"}
"""By whether the bar is reached; None where nothing was required."""

MEANINGS = {True: "reached", False: "missed", None: "nothing required"}
OTHERS: dict[Role, str] = {"best": "best flags", "defaults": "its defaults", "bare": "bare llama_decode"}


def main() -> None:
    results = load_results()
    if not results.get("loads"):
        raise SystemExit(f"{CHAT} has no loads; run `python -m benchmarks.chat` first")
    draw(results["loads"], CHAT.with_suffix(".png"))


def draw(loads: Section, path: Path) -> None:
    """Write the picture of what was measured."""
    verdicts = [verdict for verdict in (judge(bar, loads) for bar in BARS) if verdict.ratio is not None]
    mpl.rcParams.update({"font.size": 9, "font.family": "DejaVu Sans"})
    height = 1.7 + 0.42 * len(verdicts)
    figure, axes = plt.subplots(figsize=(11, height))
    figure.subplots_adjust(left=0.3, right=0.73, top=1 - 0.5 / height, bottom=0.7 / height)
    figure.suptitle("Hearth and llama-server on the same llama.cpp: longer is better; latencies are inverted", y=0.99)
    _frame(axes, verdicts)
    for row, verdict in enumerate(verdicts):
        _draw_bar(axes, row, verdict)
        _write_numbers(axes, row, verdict, loads)
    figure.savefig(path, dpi=130, bbox_inches="tight")
    plt.close(figure)


def _frame(axes: Axes, verdicts: list[Verdict]) -> None:
    titles = {load.name: load.title for load in LOADS}
    labels = [
        f"({each.bar.load}) {titles[each.bar.load]}\n{each.bar.label}, vs {OTHERS[each.bar.against]}"
        for each in verdicts
    ]
    axes.set_yticks(range(len(verdicts)), labels)
    axes.set_ylim(len(verdicts) - 0.4, -0.9)  # the first on top
    axes.set_xscale("log", base=2)
    reach = [_times(each, ratio) for each in verdicts for ratio in (each.worst, each.best) if ratio]
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


def _draw_bar(axes: Axes, row: int, verdict: Verdict) -> None:
    assert verdict.ratio and verdict.worst and verdict.best
    times, least, most = (_times(verdict, ratio) for ratio in (verdict.ratio, verdict.worst, verdict.best))
    axes.barh(row, times - 1, left=1, height=0.6, color=COLOURS[verdict.is_reached])
    axes.errorbar(times, row, xerr=[[times - least], [most - times]], color="black", capsize=3, linewidth=1)
    required = verdict.bar.least if verdict.bar.least is not None else verdict.bar.most
    if required is not None:
        axes.plot([_times(verdict, required)] * 2, [row - 0.42, row + 0.42], color="black", linewidth=2.5)


def _write_numbers(axes: Axes, row: int, verdict: Verdict, loads: Section) -> None:
    """The ratio and both medians, in columns to the right."""
    assert verdict.ratio
    bar = verdict.bar
    unit = "" if bar.is_rate else " s"
    medians = [spread_of(loads, bar, role) for role in ("hearth", bar.against)]
    cells = [
        f"{_times(verdict, verdict.ratio):.2f} x",
        *(significant(each["median"]) + unit for each in medians if each),
    ]
    for x, head, cell in zip((1.14, 1.30, 1.46), ("ratio", "Hearth", "other"), cells, strict=True):
        axes.annotate(cell, (x, row), xycoords=axes.get_yaxis_transform(), ha="right", va="center")
        if row == 0:
            axes.annotate(head, (x, -0.75), xycoords=axes.get_yaxis_transform(), ha="right", color="#5b6673")


def _times(verdict: Verdict, ratio: float) -> float:
    """How many times as good, whatever the figure is."""
    return ratio if verdict.bar.is_rate else 1 / ratio


if __name__ == "__main__":
    main()
