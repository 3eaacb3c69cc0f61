"""The tables of docs/performance.md on documents, made from their results; a test compares them.

python -m benchmarks.rag_table                # after measuring: rewrites what stands between the table marks
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from benchmarks.bars import Role, Verdict, judge
from benchmarks.rag_bars import BARS, OTHERS
from benchmarks.rag_loads import TITLES
from benchmarks.results import INGEST_KILL, INGESTION, RAG, RETRIEVAL, VECTOR_SEARCH, Section, load_results
from benchmarks.tables import (
    NOT_YET,
    PAGE,
    bar_row,
    fill,
    markdown,
    refill,
    significant,
    spread_cell,
    spread_text,
    yes_no,
)

STAGES = {
    "dense": "by vector",
    "lexical": "by word",
    "bm25s": "bm25s with Snowball's stemmer",
    "fused": "both, fused",
    "rerank": "reranker alone, over the fused 30",
    "final": "the search: fused and reranked, blended",
}
MEASURES = ("nDCG@10", "recall@100", "MRR", "MAP@100")

SEARCHES = {
    "idle": "ordinary questions",
    "filter_1_percent": "with a filter that keeps 1 %",
    "common_words": "four words that are everywhere",
    "common_words_filter_1_percent": "the same with the filter",
    "during_ingestion": "ordinary questions, while 300 chunks a second are committed",
}


@dataclass(frozen=True)
class Row:
    """One requirement that a section of results has met or not.

    Attributes:
        section: The file's section; `bar` is the name in its `bars`.
        unit: Behind the numbers.
    """

    section: str
    bar: str
    label: str
    unit: str = ""


STORE_ROWS = (
    Row("cranfield", "fused", "Cranfield, nDCG@10: vectors and words, fused; above each alone"),
    Row("cranfield", "final", "Cranfield, nDCG@10: with the reranker; no less than without"),
    Row("cranfield", "lexical", "Cranfield, nDCG@10: words alone; within 2 % of bm25s"),
    Row("vector_search", "search_p50_ms", "search in 100,000 chunks, p50", " ms"),
    Row("vector_search", "search_p95_ms", "search in 100,000 chunks, p95", " ms"),
    Row("vector_search", "served_search_p50_ms", "the same over HTTP, with the query's embedding, p50", " ms"),
    Row("vector_search", "served_search_p95_ms", "the same over HTTP, with the query's embedding, p95", " ms"),
    Row("vector_search", "filter_exact_share", "filter that keeps 1 %: share of searches that are exact"),
    Row("vector_search", "filter_p50_ratio", "filter that keeps 1 %: p50, by that without it"),
    Row("vector_search", "ingestion_p95_ratio", "search while documents are committed: p95, by that of idle"),
    Row("ingestion", "served_ingestion_p95_ratio", "the same over HTTP, while the model embeds them too"),
    Row("ingestion", "ingestion_share", "ingestion of text, by the model's bulk rate"),
    Row("vector_search", "insert_ratio", "cost of an insert into 100,000 chunks, by that into 10,000"),
    Row("vector_search", "memory_mb", "memory of 100,000 chunks", " MB"),
    Row("vector_search", "served_memory_mb", "the same in the API process of a server", " MB"),
    Row("vector_search", "first_search_s", "restart with 100,000 chunks until the first search", " s"),
    Row("vector_search", "served_first_search_s", "the same of a server, embedding model and all", " s"),
    Row("ingest_kill", "lost", "`kill -9` during ingestion: acknowledged documents that are lost"),
    Row("ingest_kill", "returned", "`kill -9` during ingestion: deleted documents that are back"),
    Row("ingest_kill", "wrong", "`kill -9` during ingestion: hits with another text than their file's"),
    Row("ingest_kill", "stuck", "`kill -9` during ingestion: documents that do not end"),
    Row("ingest_kill", "orphans", "`kill -9` during ingestion: rows, vectors and files that do not fit together"),
)


def all_results() -> Section:
    """The sections of all files on documents, side by side; grounded chat as `rag`."""
    sections: Section = {}
    for path in (RETRIEVAL, VECTOR_SEARCH, INGESTION, INGEST_KILL):
        sections |= load_results(path)
    if rag := load_results(RAG):
        sections["rag"] = rag
    return sections


def fill_tables(page: str, results: Section) -> str:
    """Return the page with what stands between its table marks made anew."""
    of_sections = {
        "store-quality": (_quality, "cranfield"),
        "store-searches": (_searches, "vector_search"),
        "store-restarts": (_restarts, "vector_search"),
        "store-ingestion": (_ingestion, "ingestion"),
        "store-kills": (_kills, "ingest_kill"),
        "rag-loads": (_loads, "rag"),
        "rag-sharing": (_sharing, "rag"),
    }
    of_all = {"store-bars": lambda: _bars(results), "store-machines": lambda: _machines(results)}
    return refill(fill(page, results, of_sections), of_all)


def _bars(results: Section) -> str:
    rows = [
        bar_row(row.label, results.get(row.section, {}).get("bars", {}).get(row.bar), unit=row.unit)
        for row in STORE_ROWS
    ]
    return markdown(("What", "Measured", "Bar", "Reached"), rows)


def _quality(section: Section) -> str:
    measures = section["measures"]
    rows = [
        (label, *(f"{each['mean']:.3f} ({each['low']:.3f} to {each['high']:.3f})" for each in _of(measures[stage])))
        for stage, label in STAGES.items()
        if stage in measures
    ]
    return markdown(("Ranked", *MEASURES), rows)


def _of(estimates: Section) -> Iterator[Section]:
    return (estimates[name] for name in MEASURES)


def _searches(section: Section) -> str:
    rows = [
        (label, *(f"{section['search_ms'][kind][name]:.1f} ms" for name in ("p50", "p95", "p99")))
        for kind, label in SEARCHES.items()
    ]
    served = section["served"]["search_ms"]
    rows.append(("over HTTP, with the query's embedding", *(f"{served[name]:.1f} ms" for name in ("p50", "p95")), ""))
    return markdown(("Search", "p50", "p95", "p99"), rows)


def _restarts(section: Section) -> str:
    restarts = section["restart"]
    labels = {"with_index_file": "the store, index files there", "without_index_file": "the store, index files lost"}
    rows = [
        (
            label,
            f"{each['first_search_s']:.1f} s",
            f"{each['later_rss_mb'] - each['imported_rss_mb']:.0f} MB",
            f"{each['peak_rss_mb'] - each['imported_rss_mb']:.0f} MB",
        )
        for kind, label in labels.items()
        for each in [restarts[kind]]
    ]
    served = section["served"]
    grown_mb = served["rss_mb"] - served["empty_store_rss_mb"]
    rows.append(("a server, index files there", f"{served['first_search_s']:.1f} s", f"{grown_mb:.0f} MB", ""))
    return markdown(("Restart of", "First search after", "Memory after searches", "At the most"), rows)


def _ingestion(section: Section) -> str:
    figures, size = section["figures"], section["size"]

    def cell_ms(name: str) -> str:
        return spread_text(figures[name], factor=1000, unit=" ms")

    rows = [
        (
            f"ingestion, {size['documents']} documents of {size['chunks']} chunks",
            spread_text(figures["ingestion_chunks_per_s"]),
        ),
        ("the same chunks in lists of 64 to `/v1/embeddings`", spread_text(figures["bulk_chunks_per_s"])),
    ]
    rates = markdown(("", "Chunks a second"), rows)
    searches = [
        (label, cell_ms(f"{name}_p50_s"), cell_ms(f"{name}_p95_s"))
        for name, label in (("idle_search", "idle"), ("busy_search", "during an ingestion"))
    ]
    return f"{rates}\n{markdown(('Search over HTTP', 'p50', 'p95'), searches)}"


def _kills(section: Section) -> str:
    told = section["acknowledged"]
    return (
        f"{section['rounds']} kills; {told['uploads']:,} uploads, {told['completed']:,} completed documents and"
        f" {told['deleted']:,} deletions were acknowledged; {section['searches']:,} searches checked them. From the"
        f" first question to a server that serves again until nothing was in progress any more:"
        f" {spread_text(section['recovery_s'], unit=' s')}.\n"
    )


# ---- grounded chat


def _loads(section: Section) -> str:
    loads = section["loads"]
    head = ("Load", "Figure", "Hearth", "Compared with", "", "Ratio", "Bar", "Reached")
    return markdown(head, (_load_row(judge(bar, loads), loads) for bar in BARS if bar.load in loads))


def _load_row(verdict: Verdict, loads: Section) -> tuple[str, ...]:
    bar = verdict.bar
    against: Role | None = bar.against
    return (
        TITLES[bar.load],
        bar.label,
        spread_cell(loads, bar, "hearth"),
        OTHERS[against] if against else "",
        spread_cell(loads, bar, against) if against else "",
        "" if verdict.ratio is None else f"{verdict.ratio:.2f}",
        bar.required,
        yes_no(verdict.is_reached),
    )


def _sharing(section: Section) -> str:
    head = ("Load", "Questions", "Sets of sources", "Prompt tokens", "Of that as in an earlier prompt", "Best flags")
    return markdown(head, (_sharing_row(name, load) for name, load in section["loads"].items()))


def _sharing_row(name: str, load: Section) -> tuple[str, ...]:
    sharing, servers = load["sharing"], load["servers"]
    tokens = servers["hearth"]["figures"].get("mean_prompt_tokens", {}).get("median")
    return (
        TITLES[name],
        str(sharing["questions"]),
        str(sharing["source_sets"]),
        "" if tokens is None else significant(tokens),
        f"{100 * sharing['shareable_share']:.0f} %",
        f"`{servers['best']['name']}`" if "best" in servers else "",
    )


# ---- where and when


def _machines(results: Section) -> str:
    """One line for each measurement; machines may differ."""
    names = {
        "cranfield": "`retrieval`",
        "vector_search": "`vector_search`",
        "ingestion": "`ingestion`",
        "ingest_kill": "`ingest_kill`",
    }
    environments = [(label, results[name]["environment"]) for name, label in names.items() if name in results]
    loads = results.get("rag", {}).get("loads", {})
    environments += [(f"`rag`, {name}", load["environment"]) for name, load in loads.items()]
    return "".join(_machine_lines(environments)) or NOT_YET


def _machine_lines(environments: Iterable[tuple[str, Section]]) -> Iterator[str]:
    for label, environment in environments:
        machine, versions = environment["machine"], environment["versions"]
        yield (
            f"- {label}: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']};"
            f" Python {versions['python']}, torch {versions['torch']}, faiss {versions['faiss-cpu']}, SQLite"
            f" {versions['sqlite']}, Hearth at {versions['hearth commit']}; load average {machine['load_at_start']} at"
            f" the start. Measured on {environment['date'][:10]}.\n"
        )


if __name__ == "__main__":
    PAGE.write_text(fill_tables(PAGE.read_text(encoding="utf-8"), all_results()), encoding="utf-8")
