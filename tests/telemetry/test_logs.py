from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from server.telemetry.logs import LogFormat, configure_logs, resolve_format

logger = logging.getLogger("server.example")


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """The set-up is the process's: give pytest its own back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_json_lines_carry_the_fields_and_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "json")
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        logger.exception("100% failed", extra={"model": "m"})

    line = json.loads(capsys.readouterr().err)

    assert (line["event"], line["level"], line["model"]) == ("100% failed", "error", "m")
    assert line["exception"].endswith("RuntimeError: broken")
    assert "timestamp" in line


def test_text_lines_are_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "text")
    logger.warning("model failed", extra={"model": "m"})

    line = capsys.readouterr().err

    assert "[warning" in line
    assert "model=m" in line


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_lines_below_the_level_are_not_written(log_format: LogFormat, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("warning", log_format)

    logger.info("quiet")

    assert capsys.readouterr().err == ""


def test_auto_is_json_where_nobody_reads_along(capsys: pytest.CaptureFixture[str]) -> None:
    assert resolve_format("auto") == "json"
    assert resolve_format("text") == "text"
