"""The tables of docs/performance.md, made from benchmarks/results/chat.json; a test compares them.

python -m benchmarks.chat_table               # after measuring: rewrites what stands between the table marks
"""

from __future__ import annotations

from benchmarks.bars import Role, Verdict, judge
from benchmarks.chat_bars import BARS
from benchmarks.chat_loads import LOADS
from benchmarks.results import Section, load_results
from benchmarks.tables import PAGE, fill, markdown, spread_cell, yes_no

STEP_LIMITS_MS = {"greedy": 1.5, "truncated": 3.0}
STEP_NAMES = {"greedy": "greedy", "truncated": "top_k 40, top_p 0.95, temperature 0.8"}

_COLUMNS: tuple[Role, ...] = ("hearth", "best", "defaults")


def fill_tables(page: str, results: Section) -> str:
    """Return the page with what stands between its table marks made anew."""
    makers = {
        "chat-loads": (_loads, "loads"),
        "chat-machine": (_machine, "loads"),
        "chat-flags": (_flags, "loads"),
        "chat-steps": (_steps, "step_cost"),
        "chat-profile": (_profile, "step_profile"),
        "chat-growth": (_growth, "growth"),
    }
    return fill(page, results, makers)


def _loads(loads: Section) -> str:
    head = ("Load", "Figure", "Hearth", "llama-server, best flags", "Its defaults", "Ratio", "Bar", "Reached")
    return markdown(head, (_row(judge(bar, loads), loads) for bar in BARS))


def _row(verdict: Verdict, loads: Section) -> tuple[str, ...]:
    bar = verdict.bar
    title = next(load.title for load in LOADS if load.name == bar.load)
    label = f"{bar.label}; bare limit {spread_cell(loads, bar, 'bare')}" if bar.against == "bare" else bar.label
    return (
        f"({bar.load}) {title}",
        label,
        *(spread_cell(loads, bar, role) for role in _COLUMNS),
        "" if verdict.ratio is None else f"{verdict.ratio:.2f}",
        f"{bar.required} x {bar.against}" if bar.required and bar.against else bar.required,
        yes_no(verdict.is_reached),
    )


def _machine(loads: Section) -> str:
    """Where, when and what; as of the latest load, with the number of repetitions of each."""
    latest = max(loads.values(), key=lambda load: str(load["environment"]["date"]))
    machine, versions = latest["environment"]["machine"], latest["environment"]["versions"]
    repetitions = sorted({load["repetitions"] for load in loads.values()})
    return (
        f"Machine: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}; Python"
        f" {versions['python']}, llama-cpp-python {versions['llama-cpp-python']} built with"
        f" {versions['llama.cpp compiler']}, Hearth at {versions['hearth commit']}. Repetitions:"
        f" {', '.join(map(str, repetitions))}. Latest load: {latest['environment']['date'][:10]}.\n"
    )


def _flags(loads: Section) -> str:
    rows = [
        (f"({name})", *(_code(loads[name]["servers"].get(role, {}).get("name", "")) for role in ("best", "bare")))
        for name in sorted(loads)
    ]
    return markdown(("Load", "Best flags of llama-server", "Best way of the bare loop"), rows)


def _steps(steps: Section) -> str:
    rows = []
    for kind, limit_ms in STEP_LIMITS_MS.items():
        step_ms = steps.get(kind, {}).get("step_ms")
        measured = f"{step_ms['p50']:.2f} ms (p95 {step_ms['p95']:.2f})" if step_ms else "not measured"
        reached = step_ms["p50"] <= limit_ms if step_ms else None
        rows.append((STEP_NAMES[kind], measured, _parts(steps.get(kind, {})), f"<= {limit_ms} ms", yes_no(reached)))
    return markdown(("Sampling", "A step", "Of this", "Bar", "Reached"), rows)


def _profile(profile: Section) -> str:
    """One column for each number of sequences, one row for each part."""
    widths = [name for name in ("16", "64") if name in profile]
    columns = {width: profile[width]["parts_ms"] for width in widths}
    rows = []
    for part in next(iter(columns.values()), {}):
        shares = [(parts[part], parts[part] / sum(parts.values())) for parts in columns.values()]
        rows.append((part, *(f"{ms:.2f} ms ({100 * share:.1f} %)" for ms, share in shares)))
    return markdown(("Part of a step", *(f"{width} sequences" for width in widths)), rows)


def _growth(growth: Section) -> str:
    rows: list[tuple[str, ...]] = []
    if memory := growth.get("memory"):
        first, last = memory["rss_mb"][0], memory["rss_mb"][-1]
        rows.append((f"memory over {memory['num_requests']:,} requests", f"{first:.0f} MB", f"{last:.0f} MB"))
        rows.append(("its growth per 1,000 requests, later half", "", f"{memory['rss_mb_per_1000_requests']:.1f} MB"))
    for layout, step_ms in growth.get("steps_ms", {}).items():
        rows.append(
            (f"step of a lone stream, `kv: {layout}`", *(f"{step_ms[key]:.1f} ms" for key in ("empty", "full")))
        )
    return markdown(("", "At the start, cache empty", "At the end, cache full"), rows)


def _parts(section: Section) -> str:
    parts = section.get("parts_ms", {})
    return ", ".join(f"{part} {ms:.2f}" for part, ms in parts.items() if part != "llama_decode")


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


if __name__ == "__main__":
    PAGE.write_text(fill_tables(PAGE.read_text(encoding="utf-8"), load_results()), encoding="utf-8")
