"""What the benchmark of grounded chat has to show: which figures are compared, with whom, and what to reach."""

from __future__ import annotations

from benchmarks.bars import Bar, Role, held_to, judge
from benchmarks.results import Section

OTHERS: dict[Role, str] = {
    "best": "llama-server, best flags",
    "defaults": "llama-server, its defaults",
    "rendered": "Hearth, sent the prompts",
}


def _bars(load: str) -> tuple[Bar, ...]:
    return (
        Bar(load=load, figure="requests_per_s", label="requests/s", least=2.0),
        Bar(load=load, figure="requests_per_s", label="requests/s", against="defaults", least=2.0),
        Bar(load=load, figure="requests_per_s", label="requests/s", against="rendered"),
        Bar(load=load, figure="ttft_p50_s", label="TTFT p50"),
        Bar(load=load, figure="ttft_p95_s", label="TTFT p95"),
        Bar(load=load, figure="cached_share", label="prompt tokens from the cache"),
        Bar(load=load, figure="finding_share", label="finding sources, of the time of a request", against=None),
        Bar(load=load, figure="finding_p50_s", label="finding sources, p50", against=None),
        Bar(load=load, figure="grounded_share", label="answers with sources", against=None, least=1.0),
        Bar(load=load, figure="completion_rate", label="requests completed", against=None, least=1.0),
    )


BARS = (*_bars("fused"), *_bars("reranked"))


def required(loads: Section) -> Section:
    """What is required of the loads that were measured, with what was."""
    verdicts = [judge(bar, loads) for bar in BARS if bar.bound is not None and bar.against is not None]
    return {
        f"{verdict.bar.load}, {verdict.bar.label} over {verdict.bar.against}": held_to(
            verdict.ratio, least=verdict.bar.least, most=verdict.bar.most
        )
        for verdict in verdicts
        if verdict.ratio is not None
    }
