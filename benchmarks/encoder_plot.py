"""The pictures of docs/performance.md on embeddings and rerank, made from their results. Needs the extra `bench`.

python -m benchmarks.encoder_plot             # after measuring: writes encoders.png and embedding_rates.png
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks import ratio_chart
from benchmarks.bars import Bar, Role, judge, spread_of
from benchmarks.encoder_bars import CURVES, EMBEDDING_BARS, OTHERS, RERANK_BARS
from benchmarks.encoder_table import TITLES
from benchmarks.ratio_chart import Row
from benchmarks.results import EMBEDDINGS, RERANK, Section, load_results
from benchmarks.tables import significant

COLOURS: dict[Role, str] = {"hearth": "#2a7f62", "plain": "#8a94a0", "infinity": "#c8963d"}
LIMIT_COLOUR = "#33404d"
_WIDTH = 0.27


def main() -> None:
    embeddings, rerank = load_results(EMBEDDINGS).get("loads", {}), load_results(RERANK).get("loads", {})
    rows = [*rows_of(EMBEDDING_BARS, embeddings), *rows_of(RERANK_BARS, rerank)]
    if not rows:
        raise SystemExit(f"{EMBEDDINGS} and {RERANK} have no loads; run `python -m benchmarks.embeddings` first")
    ratio_chart.draw(rows, "Hearth and others on the same weights", EMBEDDINGS.with_name("encoders.png"))
    draw_rates(embeddings, EMBEDDINGS.with_name("embedding_rates.png"))


def rows_of(bars: Sequence[Bar], loads: Section) -> list[Row]:
    """Those that compare something; what Hearth has to reach by itself stands in the table."""
    verdicts = [verdict for verdict in (judge(bar, loads) for bar in bars) if verdict.ratio is not None]
    return [
        Row(f"{TITLES[each.bar.load]}\n{each.bar.label}, vs {OTHERS[each.bar.against or '']}", each, loads)
        for each in verdicts
    ]


def draw_rates(loads: Section, path: Path) -> None:
    """Texts a second of each server: over the number of clients, and over the length of their lists."""
    mpl.rcParams.update({"font.size": 9, "font.family": "DejaVu Sans"})
    figure, all_axes = plt.subplots(
        1, len(CURVES), figsize=(11, 3.6), sharey=True, width_ratios=[len(ticks) for ticks in CURVES.values()]
    )
    for axes, (title, ticks) in zip(all_axes, CURVES.items(), strict=True):
        _draw_panel(axes, title, ticks, loads)
    all_axes[0].set_ylabel("texts a second, 8 to 200 words")
    all_axes[-1].legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    figure.suptitle("Embeddings over HTTP, cache off: more is better")
    figure.savefig(path, dpi=130, bbox_inches="tight")
    plt.close(figure)


def _draw_panel(axes: Axes, title: str, ticks: Mapping[str, str], loads: Section) -> None:
    for place, (role, colour) in enumerate(COLOURS.items()):
        offset = (place - (len(COLOURS) - 1) / 2) * _WIDTH
        for x, name in enumerate(ticks.values()):
            rate = spread_of(loads, _rate(name), role)
            if rate is None:
                continue
            error = [[rate["median"] - rate["min"]], [rate["max"] - rate["median"]]]
            label = OTHERS.get(role, "Hearth") if x == 0 else None
            axes.bar(x + offset, rate["median"], _WIDTH, color=colour, label=label, yerr=error, capsize=2)
            axes.annotate(
                significant(rate["median"]), (x + offset, rate["max"]), ha="center", va="bottom", fontsize=8,
                xytext=(0, 2), textcoords="offset points",
            )  # fmt: skip
    if limit := spread_of(loads, _rate("c16"), "bare"):
        axes.axhline(limit["median"], color=LIMIT_COLOUR, linestyle="--", linewidth=1, label=OTHERS["bare"])
    axes.set_xticks(range(len(ticks)), list(ticks))
    axes.set_xlabel(title)
    axes.spines[["top", "right"]].set_visible(False)


def _rate(load: str) -> Bar:
    return Bar(load=load, figure="items_per_s", label="texts/s")


if __name__ == "__main__":
    main()
