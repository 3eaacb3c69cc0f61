"""Prometheus' own checks, where it is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

PROMTOOL = shutil.which("promtool")


def metric_complaints(page: str) -> str:
    """What promtool has to say about a page of metrics; skips the test where there is no promtool."""
    return _complaints(["check", "metrics"], page)


def rule_complaints(rules: Path) -> str:
    """The same of a file of alert rules."""
    return _complaints(["check", "rules", str(rules)])


def _complaints(arguments: list[str], text: str | None = None) -> str:
    if PROMTOOL is None:
        pytest.skip("no promtool")
    done = subprocess.run([PROMTOOL, *arguments], input=text, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr
