"""Prometheus' own checks, where it is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

PROMTOOL = shutil.which("promtool")


def check_metrics(page: str) -> None:
    """Fail the test if promtool finds fault with a page of metrics; skip it where there is no promtool."""
    _run(["check", "metrics"], page)


def check_rules(rules: Path) -> None:
    """The same with a file of alert rules."""
    _run(["check", "rules", str(rules)])


def _run(arguments: list[str], text: str | None = None) -> None:
    if PROMTOOL is None:
        pytest.skip("no promtool")
    done = subprocess.run([PROMTOOL, *arguments], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
