"""What `hearth bench` has measured, as a picture. Needs matplotlib, which is of the extra `bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from server.cli.bench_report import HEADLINES, Report

_LINES = {
    "chat": {"ttft_p50_s": "first word, median", "ttft_p95_s": "first word, 95 %", "gap_p99_s": "gap, 99 %"},
    "embedding": {"latency_p50_s": "answer, median", "latency_p95_s": "answer, 95 %"},
    "rerank": {"latency_p50_s": "answer, median", "latency_p95_s": "answer, 95 %"},
}
_COLOURS = ("#2a7f62", "#c8553d", "#8a94a0")


class NoChart(Exception):
    """There is nothing to draw with, or nothing to draw; the message says which."""


def draw_chart(report: Report, path: Path) -> None:
    """Write a PNG: throughput by clients above, times below.

    Raises:
        NoChart: matplotlib is not installed, or nothing was measured.
        OSError: The file cannot be written.
    """
    levels = [level for level in report["levels"] if level["figures"]]
    if not levels:
        raise NoChart(f"{path} was not written: there is nothing to draw")
    try:
        from matplotlib.figure import Figure
    except ImportError as exc:
        what = "install matplotlib, which is in the extra `bench`"
        raise NoChart(f"{path} was not written: {what}") from exc
    figure = Figure(figsize=(8, 7), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    name, unit = HEADLINES[report["kind"]]
    _draw_line(above, levels, name, label=unit, colour=_COLOURS[0])
    above.set_ylabel(unit)
    for colour, (figure_name, label) in zip(_COLOURS, _LINES[report["kind"]].items(), strict=False):
        _draw_line(below, levels, figure_name, label=label, colour=colour)
    below.set_ylabel("seconds")
    below.set_yscale("log")
    below.set_xlabel("clients at a time")
    below.set_xscale("log", base=2)
    below.set_xticks([level["num_clients"] for level in levels], [str(level["num_clients"]) for level in levels])
    below.legend(frameon=False)
    for axes in (above, below):
        axes.grid(color="#e3e6ea", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
    above.set_ylim(bottom=0)
    figure.suptitle(f"{report['model']}, {report['date'][:10]}")
    figure.savefig(path, dpi=130)


def _draw_line(axes: Any, levels: list[dict[str, Any]], name: str, *, label: str, colour: str) -> None:
    points = [(level["num_clients"], level["figures"][name]) for level in levels if name in level["figures"]]
    axes.plot([x for x, _ in points], [y for _, y in points], marker="o", label=label, color=colour)
