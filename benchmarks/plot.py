"""The picture of docs/performance.md on chat, made from benchmarks/results/chat.json. Needs the extra `bench`.

python -m benchmarks.plot                     # after measuring: writes benchmarks/results/chat.png
"""

from __future__ import annotations

from benchmarks import ratio_chart
from benchmarks.bars import Role, Verdict, judge
from benchmarks.chat_bars import BARS
from benchmarks.chat_loads import LOADS
from benchmarks.ratio_chart import Row
from benchmarks.results import CHAT, load_results

OTHERS: dict[Role, str] = {"best": "best flags", "defaults": "its defaults", "bare": "bare llama_decode"}


def main() -> None:
    loads = load_results().get("loads")
    if not loads:
        raise SystemExit(f"{CHAT} has no loads; run `python -m benchmarks.chat` first")
    verdicts = [verdict for verdict in (judge(bar, loads) for bar in BARS) if verdict.ratio is not None]
    rows = [Row(_label(verdict), verdict, loads) for verdict in verdicts]
    ratio_chart.draw(rows, "Hearth and llama-server on the same llama.cpp", CHAT.with_suffix(".png"))


def _label(verdict: Verdict) -> str:
    bar = verdict.bar
    assert bar.against
    title = next(load.title for load in LOADS if load.name == bar.load)
    return f"({bar.load}) {title}\n{bar.label}, vs {OTHERS[bar.against]}"


if __name__ == "__main__":
    main()
