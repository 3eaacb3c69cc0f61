"""Half a megabyte of hostile model output through every reader of answers: how long is the longest single step?

    python -m benchmarks.parsers                  # two minutes

Each text of 520 KB is made to keep one kind of reader busy: markers that never close, calls without an end, brackets,
half a marker over and over. Every reader gets every text, four characters at a time as a model writes it, and in one
piece, as no model can. The readers of calls and thoughts run in the worker's text thread, that of citations on the
event loop of the API process: what counts there is the longest step, as everybody waits for it.

Writes benchmarks/results/parsers.json, and ends with 1 if a step over a token takes 50 ms.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.results import PARSERS, Section, environment
from server.prompting.answers.answer_reader import AnswerReader
from server.prompting.answers.answer_writer import AnswerWriter
from server.prompting.answers.known_formats import TOOL_FORMATS
from server.prompting.answers.text_source import Reading, TextSource
from server.prompting.answers.thoughts import THINK
from server.prompting.answers.tool_format import Schemas, ToolFormat
from server.rag.citations import CitationFilter

SIZE = 520_000
TOKEN_CHARS = 4
MAX_STEP_MS = 50.0

SCHEMAS: Schemas = {"get_time": {"properties": {"a": {"type": "string"}}}, "get_weather": {}}

ANSWER_FLOODS = (
    "<tool_call>",
    "<tool_call>{",
    '<tool_call>{"name": "get_time", "arguments": {"a": "',
    '<tool_call>{"name": "get_time", "arguments": {}}',
    '<tool_call>{"arguments": {"a": [1, 2, {"b": "\\u0041"}]}, "name": "get_time"}</tool_call>\n',
    "<function=get_time><parameter=a>",
    "<tool_call><function=get_time>\n<parameter=a>\n[1,\n</parameter>\n</function></tool_call>",
    "[TOOL_CALLS]get_time[ARGS]{",
    "[TOOL_CALLS][" + "[" * 50,
    "<｜tool▁call▁begin｜>get_time<｜tool▁sep｜>{",
    '<|tool_call>call:get_time{a:<|"|>',
    "<|channel|>commentary to=functions.get_time<|message|>{",
    "<|start|>assistant<|channel|>",
    "<|channel>",
    "<think>",
    "<think></think>",
    '{"name": "',
    '{"a":',
    *("[", "]", "{", "<", "<｜", " ", "\n", "\\", '\\"', "1", '"', "é"),
)
CITATION_FLOODS = ("`", "[1", "[1,", " [1] ", "[1-", "【1】", "[9]", "``` ")

Feed = Callable[[str], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=PARSERS)
    arguments = parser.parse_args()
    section: Section = {**environment(), "size": SIZE, "token_chars": TOKEN_CHARS, "readers": {}}
    for name, make in readers().items():
        section["readers"][name] = measured = {
            "by_token": worst(make, TOKEN_CHARS),
            "in_one_piece": worst(make, SIZE),
        }
        print(f"{name}: {measured}", flush=True)
    arguments.out.write_text(json.dumps(section, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    slow = [name for name, each in section["readers"].items() if each["by_token"]["longest_step_ms"] >= MAX_STEP_MS]
    print(f"slow: {slow or 'none'}; written to {arguments.out}")
    sys.exit(bool(slow))


def readers() -> dict[str, Callable[[], Feed]]:
    """Makes a fresh one of each."""
    return {
        **{name: _reader_of(tools) for name, tools in TOOL_FORMATS.items()},
        "citations": lambda: CitationFilter(num_sources=3).feed,
    }


def _reader_of(tools: ToolFormat) -> Callable[[], Feed]:
    def read(source: TextSource, answer: AnswerWriter) -> Reading[None]:
        yield from THINK.read_first(source, answer, is_open=False)
        yield from tools.read(source, answer, SCHEMAS, THINK)

    return lambda: AnswerReader(read, AnswerWriter(SCHEMAS.keys())).push


def worst(make: Callable[[], Feed], num_chars: int) -> dict[str, object]:
    """Of all floods, the longest step and the longest text, in processor time and without collections of garbage."""
    longest_ms, longest_flood, most_s = 0.0, "", 0.0
    for flood in ANSWER_FLOODS + CITATION_FLOODS:
        text = (flood * SIZE)[:SIZE]
        pieces = [text[at : at + num_chars] for at in range(0, SIZE, num_chars)]
        feed, step_s, started_s = make(), 0.0, time.thread_time()
        gc.disable()
        for piece in pieces:
            before_s = time.thread_time()
            feed(piece)
            step_s = max(step_s, time.thread_time() - before_s)
        gc.enable()
        most_s = max(most_s, time.thread_time() - started_s)
        if 1000 * step_s > longest_ms:
            longest_ms, longest_flood = 1000 * step_s, flood
    return {"longest_step_ms": round(longest_ms, 2), "of": longest_flood[:60], "seconds": round(most_s, 2)}


if __name__ == "__main__":
    main()
