"""Prompts for `hearth bench` from a file: a line of text each, or JSON lines.

Of JSON, a chat takes {"messages": [...]} or {"prompt": "..."}, an embedding {"text": "..."}, a rerank
{"query": "...", "documents": ["..."]}; a JSON string is text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from server.cli.exit_codes import ExitCode
from server.cli.settings import fail
from server.loadgen.workloads import Messages, Query, as_messages
from server.types import ModelKind

Prompt = Messages | str | Query


class _Chat(msgspec.Struct):
    messages: list[dict[str, Any]] = []
    prompt: str = ""


class _Text(msgspec.Struct):
    text: str


def read_prompts(path: Path, kind: ModelKind) -> list[Prompt]:
    """Read all of a file; leave with one line that names what is wrong, and where."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        fail(f"{path} cannot be read: {exc}", code=ExitCode.WRONG_INPUT)
    prompts: list[Prompt] = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                prompts.append(_prompt(line, kind))
            except msgspec.DecodeError as exc:
                fail(f"{path}:{number}: {exc}; see `hearth bench --help`", code=ExitCode.WRONG_INPUT)
    if not prompts:
        fail(f"{path} has no prompts", code=ExitCode.WRONG_INPUT)
    return prompts


def _prompt(line: str, kind: ModelKind) -> Prompt:
    if kind == "rerank":
        return msgspec.json.decode(line, type=Query)
    if line.startswith('"'):
        text = msgspec.json.decode(line, type=str)
    elif not line.startswith("{"):
        text = line
    elif kind == "embedding":
        text = msgspec.json.decode(line, type=_Text).text
    else:
        chat = msgspec.json.decode(line, type=_Chat)
        if chat.messages:
            return chat.messages
        if not chat.prompt:
            raise msgspec.ValidationError("expected `messages` or `prompt`")
        text = chat.prompt
    return as_messages(text) if kind == "chat" else text
