"""Dashboard and alert rules speak of metrics that there are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fakes.metric_pages import full_page, names_on
from tests.fakes.promtool import rule_complaints

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARDS = sorted((DEPLOY / "grafana").glob("**/*.json"))
RULES = DEPLOY / "prometheus" / "alerts.yml"

_PARTS = r"_(?:bucket|sum|count)$"


def expressions(node: Any) -> Iterator[str]:
    """Of all panels, however deep, and of the variables."""
    if isinstance(node, dict):
        yield from (node[key] for key in ("expr", "definition") if isinstance(node.get(key), str))
        node = list(node.values())
    if isinstance(node, list):
        for each in node:
            yield from expressions(each)


def unknown(expression: str) -> set[str]:
    named = re.findall(r"\bhearth_\w+", expression)
    known = names_on(full_page())
    return {name for name in named if name not in known and re.sub(_PARTS, "", name) not in known}


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def test_there_is_a_dashboard() -> None:
    assert DASHBOARDS


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_a_dashboard_shows_metrics_that_there_are(path: Path) -> None:
    dashboard = json.loads(path.read_text())

    found = list(expressions(dashboard["panels"]))

    assert len(found) > 20
    assert not [name for expression in expressions(dashboard) for name in unknown(expression)]


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_panels_do_not_lie_on_each_other(path: Path) -> None:
    panels = json.loads(path.read_text())["panels"]

    cells = [
        (x, y)
        for panel in panels
        for at in [panel["gridPos"]]
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]

    assert len(cells) == len(set(cells))
    assert len({panel["id"] for panel in panels}) == len(panels)


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_is_about_metrics_that_there_are(rule: dict[str, Any]) -> None:
    assert not unknown(rule["expr"])
    assert "hearth" in rule["expr"]
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert {"summary", "description"} == set(rule["annotations"])
    assert rule["expr"].count("(") == rule["expr"].count(")")


def test_a_name_that_is_wrong_is_noticed() -> None:
    assert unknown("rate(hearth_no_such_thing_total[5m])") == {"hearth_no_such_thing_total"}


def test_promtool_has_nothing_to_say() -> None:
    assert rule_complaints(RULES) == ""
