"""The page of a server that has everything there is a metric for."""

from __future__ import annotations

from functools import cache

from prometheus_client.parser import text_string_to_metric_families

from server.telemetry.metrics_reference import full_metrics


@cache
def full_page() -> str:
    return full_metrics().page().decode()


def names_on(page: str) -> set[str]:
    """As dashboards write them: of histograms the common part."""
    return {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in text_string_to_metric_families(page)
    }
