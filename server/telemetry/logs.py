"""Logging set-up: stdlib loggers everywhere, rendered by structlog as text on a terminal and JSON lines elsewhere."""

from __future__ import annotations

import logging
import os
import sys
from typing import Literal

import structlog

LogFormat = Literal["text", "json"]


def resolve_format(log_format: Literal["auto", "text", "json"]) -> LogFormat:
    """Text where a person reads along, JSON lines where a machine does."""
    if log_format == "auto":
        return "text" if sys.stderr.isatty() else "json"
    return log_format


def configure_logs(level: str, log_format: LogFormat, **fields: str) -> None:
    """Send all log lines of level `level` and above to stderr, each with `fields`. Call once per process."""
    if log_format == "json":
        _install(level, structlog.processors.JSONRenderer(), fields)
    else:
        colors = sys.stderr.isatty() and "NO_COLOR" not in os.environ
        _install(level, structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=30), fields)


def _install(level: str, renderer: structlog.typing.Processor, fields: dict[str, str]) -> None:
    def add_fields(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        return {**fields, **event}

    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        add_fields,
        _drop_color_message,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


def _drop_color_message(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """uvicorn says some things twice, the second time with terminal colours."""
    event.pop("color_message", None)
    return event
