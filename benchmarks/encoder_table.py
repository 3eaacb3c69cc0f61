"""The tables of docs/performance.md on embeddings and rerank, made from their results; a test compares them.

python -m benchmarks.encoder_table            # after measuring: rewrites what stands between the table marks
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from benchmarks.bars import Bar, Role, Verdict, judge
from benchmarks.emit import LIMITS_MS
from benchmarks.encoder_bars import CURVES, EMBEDDING_BARS, OTHERS, RERANK_BARS
from benchmarks.encoder_loads import EMBEDDING_LOADS, RERANK_LOADS
from benchmarks.results import EMBEDDINGS, RERANK, Section, load_results
from benchmarks.tables import PAGE, fill, markdown, spread_cell, spread_text, yes_no

TITLES = {load.name: load.title for load in (*EMBEDDING_LOADS, *RERANK_LOADS)}


def fill_tables(page: str, embeddings: Section, rerank: Section) -> str:
    """Return the page with what stands between its table marks made anew."""
    found = {"embeddings": embeddings, "emit": embeddings.get("emit"), "rerank": rerank}
    makers: dict[str, tuple[Callable[[Section], str], str]] = {
        "embedding-bars": (partial(_bars, EMBEDDING_BARS), "embeddings"),
        "embedding-curves": (_curves, "embeddings"),
        "embedding-parity": (_parity, "embeddings"),
        "embedding-emit": (_emit, "emit"),
        "embedding-machine": (_machine, "embeddings"),
        "rerank-bars": (partial(_bars, RERANK_BARS), "rerank"),
        "rerank-parity": (_parity, "rerank"),
        "rerank-machine": (_machine, "rerank"),
    }
    return fill(page, {name: section for name, section in found.items() if section}, makers)


def _bars(bars: Iterable[Bar], results: Section) -> str:
    loads = results["loads"]
    head = ("Load", "Figure", "Hearth", "Compared with", "", "Ratio", "Bar", "Reached")
    return markdown(head, (_row(judge(bar, loads), loads) for bar in bars))


def _row(verdict: Verdict, loads: Section) -> tuple[str, ...]:
    bar = verdict.bar
    return (
        TITLES[bar.load],
        bar.label,
        spread_cell(loads, bar, "hearth"),
        OTHERS[bar.against] if bar.against else "",
        spread_cell(loads, bar, bar.against) if bar.against else "",
        "" if verdict.ratio is None else f"{verdict.ratio:.2f}",
        bar.required,
        yes_no(verdict.is_reached),
    )


def _curves(results: Section) -> str:
    roles: tuple[Role, ...] = ("hearth", "infinity", "plain")
    names = dict.fromkeys(name for ticks in CURVES.values() for name in ticks.values())
    rates = {name: Bar(load=name, figure="items_per_s", label="texts/s") for name in names}
    rows = [(TITLES[name], *(spread_cell(results["loads"], rates[name], role) for role in roles)) for name in names]
    return markdown(("Load", "Hearth, texts/s", *(f"{OTHERS[role]}, texts/s" for role in roles[1:])), rows)


def _parity(results: Section) -> str:
    distances = {role: each["max_distance"] for role, each in results.get("parity", {}).items() if role != "plain"}
    each = [f"{OTHERS.get(role, 'Hearth')} {distance:.1g}" for role, distance in distances.items()]
    return f"{', '.join(each) or 'not measured'}.\n"


def _emit(emit: Section) -> str:
    rows = []
    for name, limit_ms in LIMITS_MS.items():
        size = f"{emit[name]['num_bytes'] / 1e6:.1f} MB"
        writing_ms = emit[name]["ms"]
        is_reached = writing_ms["median"] < limit_ms
        rows.append((f"`{name}`", size, spread_text(writing_ms, unit=" ms"), f"< {limit_ms:g} ms", yes_no(is_reached)))
    return markdown(("`encoding_format`", "The body", "Writing it", "Bar", "Reached"), rows)


def _machine(results: Section) -> str:
    """Where, when and what; as of the latest load."""
    latest = max(results["loads"].values(), key=lambda load: str(load["environment"]["date"]))
    machine, versions = latest["environment"]["machine"], latest["environment"]["versions"]
    details = [server["runtime"].get("details", {}) for server in latest["servers"].values()]
    kernels = {each["kernel"] for each in details if "kernel" in each}
    peers = [f"{name.removeprefix('infinity: ')} {number}" for name, number in versions.items() if ":" in name]
    return (
        f"Machine: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}; Python"
        f" {versions['python']}, torch {versions['torch']}, sentence-transformers {versions['sentence-transformers']},"
        f" Hearth at {versions['hearth commit']} with the kernel {', '.join(sorted(kernels)) or 'not stated'}; in"
        f" Infinity's environment {', '.join(peers)}. Repetitions: {latest['repetitions']}."
        f" Measured on {latest['environment']['date'][:10]}.\n"
    )


if __name__ == "__main__":
    page = fill_tables(PAGE.read_text(encoding="utf-8"), load_results(EMBEDDINGS), load_results(RERANK))
    PAGE.write_text(page, encoding="utf-8")
