"""The table and the picture of docs/performance.md on overload and fairness, made from their results.

python -m benchmarks.overload_table           # after measuring; draws overload.png too, with the extra `bench`
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.results import OVERLOAD, Section, load_results
from benchmarks.tables import NOT_YET, PAGE, bar_row, markdown, refill

ROWS = (
    ("overload", "goodput", "answered at 10 x capacity, by capacity", ""),
    ("overload", "rejection_p99_s", "a refusal takes, p99", " s"),
    ("overload", "without_time_to_come_back", "refusals without a time to come back of 1 to 120 s", ""),
    ("overload", "failed_otherwise", "requests that were neither answered nor refused with 503", ""),
    ("overload", "growth_mb", "memory of the process tree, growth after the first fifth", " MB"),
    ("overload", "recovered_s", "after the flood, until a first word takes what it took before", " s"),
    ("fairness", "ttft_p95_ratio", "another tenant's p95 to a first word beside a flood, by that without", ""),
    ("fairness", "answered_share", "of its requests, those that were answered", ""),
)


def main() -> None:
    results = load_results(OVERLOAD)
    PAGE.write_text(fill_tables(PAGE.read_text(encoding="utf-8"), results), encoding="utf-8")
    if "overload" in results:
        draw(results["overload"], OVERLOAD.with_suffix(".png"))


def fill_tables(page: str, results: Section) -> str:
    """Return the page with what stands between its marks made anew."""
    return refill(
        page,
        {
            "overload-bars": lambda: _bars(results) if results else NOT_YET,
            "overload-figures": lambda: _figures(results) if results else NOT_YET,
        },
    )


def _bars(results: Section) -> str:
    rows = [
        bar_row(label, results.get(section, {}).get("bars", {}).get(bar), unit=unit)
        for section, bar, label, unit in ROWS
    ]
    return markdown(("What", "Measured", "Required", "Reached"), rows)


def _figures(results: Section) -> str:
    lines = []
    if flood := results.get("overload"):
        lines.append(
            f"Overload: {flood['seconds']:g} s, {flood['offered_per_s']:.1f} requests a second where "
            f"{flood['capacity_per_s']:.1f} are capacity; {flood['num_served']} answered, {flood['num_refused']} "
            f"refused. First words of those answered: p50 {flood['served']['ttft_p50_s']:.2f} s, p95 "
            f"{flood['served']['ttft_p95_s']:.2f} s; on the idle server {flood['idle']['ttft_p50_s']:.2f} s. Of the "
            f"machine's {flood['environment']['machine']['threads']} processors the clients took "
            f"{flood['processors']['clients']:.2f}, and the API process {flood['processors']['api']:.2f}.\n"
        )
    if fair := results.get("fairness"):
        lines.append(
            f"Fairness: p95 to a first word {fair['idle']['ttft_p95_s']:.2f} s alone, "
            f"{fair['beside_a_flood']['ttft_p95_s']:.2f} s beside the flood, whose own was "
            f"{fair['flood'].get('ttft_p95_s', 0):.2f} s.\n"
        )
    return "\n".join(lines)


def draw(overload: Section, path: Path) -> None:
    """Memory over the time of the flood, and what was answered in each ten seconds."""
    from matplotlib import pyplot as plt  # noqa: PLC0415  # the table needs none

    figure, (above, below) = plt.subplots(2, 1, figsize=(8, 5), sharex=True)
    above.plot(*zip(*overload["rss_mb"], strict=True), color="#2a7f62")
    above.set_ylim(bottom=0)
    above.set_ylabel("process tree, MB")
    answered = [count / 10 for count in overload["answered"]]
    below.bar([10 * index + 5 for index in range(len(answered))], answered, width=9, color="#8a94a0")
    below.axhline(overload["capacity_per_s"], color="#33404d", linewidth=1, label="capacity")
    below.set_ylabel("answers a second")
    below.set_xlabel(f"seconds of overload, {overload['offered_per_s']:.0f} requests a second")
    below.legend(loc="lower right")
    figure.suptitle("Ten times as many requests as can be answered")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
