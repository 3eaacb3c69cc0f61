"""The tables and the picture of docs/performance.md on the soak, made from its results.

python -m benchmarks.soak_table               # after measuring; draws soak.png too, with the extra `bench`
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from benchmarks.results import SOAK, Section, load_results
from benchmarks.tables import NOT_YET, PAGE, bar_row, markdown, refill, significant

ROWS = (
    ("growth_mb", "memory of all processes, growth from the first third to the last", " MB"),
    ("fds", "file descriptors of a process, most more or fewer", ""),
    ("failures", "requests that did not get what was due, and what was left behind", ""),
    ("zombies", "children that nobody waited for", ""),
    ("processes_replaced", "server or a worker replaced", ""),
    ("latency_ratio", "p50 of a kind of request, last third by first, the worst (not required: noise)", ""),
)

PICTURE = "\n![Memory of each process, minute by minute](../benchmarks/results/soak.png)\n"


def main() -> None:
    results = load_results(SOAK)
    PAGE.write_text(fill_tables(PAGE.read_text(encoding="utf-8"), results), encoding="utf-8")
    if results:
        draw(results["by_minute"], SOAK.with_suffix(".png"))


def fill_tables(page: str, results: Section) -> str:
    """Return the page with what stands between its marks made anew."""
    makers = {"soak-bars": _bars, "soak-processes": _processes, "soak-latencies": _latencies}
    summary = results.get("summary")
    return refill(page, {name: partial(make, summary) if summary else lambda: NOT_YET for name, make in makers.items()})


def _bars(summary: Section) -> str:
    rows = [bar_row(label, summary["bars"].get(bar), unit=unit) for bar, label, unit in ROWS]
    return markdown(("What", "Measured", "Required", "Reached"), rows)


def _processes(summary: Section) -> str:
    rows = [
        (
            *(role, _from_to(each["memory_mb"]), _number(each["slope_mb_per_hour"])),
            *(_from_to(each["fds"]), _from_to(each["threads"])),
        )
        for role, each in summary["processes"].items()
    ]
    rows.append(("all", _from_to(summary["memory_mb"]), _number(summary["slope_mb_per_hour"]), "", ""))
    head = ("Process", "Memory, MB", "Slope, MB an hour", "File descriptors", "Threads")
    return markdown(head, rows) + PICTURE


def _latencies(summary: Section) -> str:
    rows = []
    for kind, each in summary["requests"].items():
        spans = [
            " to ".join(_number(1000 * third[name]) if name in third else "none" for third in each["thirds"])
            for name in ("p50_s", "p95_s")
        ]
        rows.append((kind, str(each["count"]), *spans, _number(each["ratio"])))
    return markdown(("Request", "Answered", "p50, ms", "p95, ms", "p50, last third by first"), rows)


def _from_to(values: list[float]) -> str:
    return " to ".join(map(significant, values))


def _number(value: float | None) -> str:
    return "" if value is None else significant(value)


def draw(minutes: list[Section], path: Path) -> None:
    """Memory of each role over the minutes."""
    from matplotlib import pyplot as plt  # noqa: PLC0415  # the tables need none

    figure, axes = plt.subplots(figsize=(8, 3.6))
    for role in sorted({role for minute in minutes for role in minute["roles"]}):
        points = [
            (minute["minute"], minute["roles"][role]["memory_mb"]) for minute in minutes if role in minute["roles"]
        ]
        axes.plot(*zip(*points, strict=True), label=role)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("minute")
    axes.set_ylabel("memory, MB")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    figure.suptitle("Everything at once: memory of each process")
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)


if __name__ == "__main__":
    main()
