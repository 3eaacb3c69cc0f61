"""How commands and workers end is what docs/operations.md says."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.cli.exit_codes import ExitCode
from server.workers.messages import CRASHED_EXIT_CODE, LOAD_FAILED_EXIT_CODE

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/operations.md").read_text()
COMMANDS = sorted((ROOT / "server/cli").glob("*.py"))


def section(title: str) -> str:
    return re.split(r"\n##+ ", PAGE.partition(f"## {title}\n")[2])[0]


def codes_in(text: str) -> set[int]:
    return {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}


def endings(path: Path) -> Iterator[ast.expr]:
    """Every exit code that a file gives, as it is written."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name == "fail":
                yield from (keyword.value for keyword in node.keywords if keyword.arg == "code")
            elif name in ("Exit", "exit", "_exit"):
                yield from node.args


def values(expression: ast.expr) -> set[int]:
    """What it may be, as far as it is written there: a number, a name of ExitCode, or one of two."""
    if isinstance(expression, ast.Constant) and isinstance(expression.value, int):
        return {expression.value}
    if isinstance(expression, ast.Attribute) and getattr(expression.value, "id", "") == "ExitCode":
        return {ExitCode[expression.attr]}
    if isinstance(expression, ast.IfExp):
        return values(expression.body) | values(expression.orelse)
    return set()


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.stem)
def test_commands_end_as_they_are_said_to(path: Path) -> None:
    given = {code for expression in endings(path) for code in values(expression)}

    assert given <= set(ExitCode)


def test_all_ways_in_which_commands_end_are_documented() -> None:
    assert codes_in(section("Exit codes")) == set(ExitCode)


def test_all_ways_in_which_workers_end_are_documented() -> None:
    assert codes_in(section("Exit codes of workers")) == {0, CRASHED_EXIT_CODE, LOAD_FAILED_EXIT_CODE}


def test_every_signal_that_is_handled_is_documented() -> None:
    handled = {name for path in COMMANDS for name in re.findall(r"\bsignal\.(SIG[A-Z0-9]+)\b", path.read_text())}

    assert "SIGTERM" in handled
    assert {name for name in handled if f"`{name}`" not in section("Signals")} == set()
