"""What `hearth eval retrieval` prints of an evaluation, as `POST /v1/vector_stores/{id}/evaluate` answers it."""

from __future__ import annotations

from rich.console import Console
from rich.table import Column, Table

from server.cli.client import JsonObject
from server.cli.printable import printable
from server.rag.evaluation import MEASURES

LABELS = {
    "dense": "by meaning",
    "lexical": "by words",
    "rrf": "both, fused",
    "rerank": "reranker alone",
    "final": "the search",
}

_MEASURE = "nDCG@10"
"""That ways to search are compared by."""


def print_report(report: JsonObject) -> None:
    console = Console(highlight=False, soft_wrap=True, markup=False)
    several = len(report["configurations"]) > 1
    for configuration in report["configurations"]:
        if several:
            console.print(f"{printable(configuration['name'])}:", style="bold")
        console.print(_table(configuration))
        console.print()
    documents = f", documents: {report['num_documents']}" if "num_documents" in report else ""
    console.print(f"questions: {report['num_queries']}{documents}")
    if report["unknown_items"]:
        console.print(f"not there, though they are judged: {', '.join(map(printable, report['unknown_items'][:10]))}")
    _print_gains(console, report)
    for failure in sorted({each for found in report["configurations"] for each in found["rerank_failures"]}):
        console.print(f"some searches did without the reranker: {failure}")


def _table(configuration: JsonObject) -> Table:
    table = Table("RANKED BY", *(Column(name, justify="right") for name in MEASURES), box=None, pad_edge=False)
    for stage, measures in configuration["stages"].items():
        table.add_row(LABELS[stage], *(f"{measures[name]['mean']:.3f}" for name in MEASURES))
    return table


def _print_gains(console: Console, report: JsonObject) -> None:
    first, *others = report["configurations"]
    if others:
        what = f"less that of {printable(first['name'])}"
        gains = {printable(each["name"]): each["gain_over_first"] for each in others}
    else:
        what = "less that of its parts"
        gains = {LABELS[stage]: gain for stage, gain in first["gain_over_parts"].items()}
    console.print(f"{_MEASURE} of the search {what}, and where it is for 95 % of such sets of questions:")
    for name, gain in gains.items():
        found = gain[_MEASURE]
        console.print(f"  {name}: {found['mean']:+.3f}, {found['low']:+.3f} to {found['high']:+.3f}")
