"""The tables of docs/performance.md on structured output and hostile input, made from their results; a test compares.

python -m benchmarks.input_table              # after measuring: rewrites what stands between the table marks
"""

from __future__ import annotations

from collections import Counter

from benchmarks.results import HOSTILE, PARSERS, SCHEMAS, STRUCTURED, Section, load_results
from benchmarks.tables import PAGE, fill, markdown, spread_text, yes_no

LOADS = {"free": "any text", "structured": "JSON of the schema"}
KINDS = {
    "valid": "ended, and valid by `jsonschema`",
    "cut": "cut at 600 tokens (`finish_reason: length`)",
    "refused": "refused with 400 before the first token",
    "silent": "ended, and not valid",
}


def all_results() -> Section:
    """By table; what has not been measured is not in it."""
    found = {
        "input-structured": load_results(STRUCTURED).get("structured"),
        "input-hostile": load_results(HOSTILE),
        "input-parsers": load_results(PARSERS),
        "input-schemas": load_results(SCHEMAS),
    }
    return {name: section for name, section in found.items() if section}


def fill_tables(page: str, results: Section) -> str:
    """Return the page with what stands between its table marks made anew."""
    makers = {
        "input-structured": _structured,
        "input-hostile": _hostile,
        "input-parsers": _parsers,
        "input-schemas": _schemas,
    }
    return fill(page, results, {name: (make, name) for name, make in makers.items()})


def _structured(section: Section) -> str:
    def row(name: str, label: str) -> tuple[str, ...]:
        figures = section["servers"][name]["figures"]
        return label, *(spread_text(figures[figure]) for figure in ("tokens_per_s", "gap_p50_s", "gap_p99_s"))

    table = markdown(
        ("16 clients", "Tokens/s", "Between tokens, p50 (s)", "p99 (s)"),
        [row(name, label) for name, label in LOADS.items()],
    )
    verdict = f"bar {section['bar']}: {yes_no(section['is_reached'])}"
    return f"{table}\nThe second by the first, pair by pair: {spread_text(section['ratio'])}; {verdict}.\n"


def _hostile(section: Section) -> str:
    rows = [
        (row, str(sum(answers.values())), ", ".join(f"{count} × {status}" for status, count in answers.items()))
        for row, answers in section["answers"].items()
    ]
    health, neighbours = section["health_s"], section["neighbours"]
    growth = ", ".join(f"{name} {mib:.2f}" for name, mib in section["growth_mib_per_100_requests"].items())
    lines = (
        f"Answers other than expected: {section['surprises']['count']}.",
        f"Streams beside them: {neighbours['streams']}, of which {len(neighbours['changed'])} differed from what was "
        "said before.",
        f"Server and workers are the processes that they were: {yes_no(section['processes_unchanged'])}.",
        f"`/health` took {1000 * health['median']:.0f} ms, at most {1000 * health['max']:.0f}.",
        f"Growth in MiB per 100 requests, after the first fifth (bar: below 1): {growth}.",
    )
    return markdown(("Row", "Requests", "Answered"), rows) + "\n" + "".join(f"- {line}\n" for line in lines)


def _parsers(section: Section) -> str:
    rows = [
        (name, f"{each['by_token']['longest_step_ms']:.2g} ms", f"{each['by_token']['seconds']:.2g} s")
        for name, each in section["readers"].items()
    ]
    return markdown(("Reader", "Longest step over a token", "All 520 KB"), rows)


def _schemas(section: Section) -> str:
    counts = {sampling: Counter(found) for sampling, found in section["counts"].items()}
    rows = [(label, *(str(counts[sampling][kind]) for sampling in counts)) for kind, label in KINDS.items()]
    return markdown(("A hundred schemas", *counts), rows)


if __name__ == "__main__":
    PAGE.write_text(fill_tables(PAGE.read_text(encoding="utf-8"), all_results()), encoding="utf-8")
