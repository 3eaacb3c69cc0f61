"""What structured output costs: 16 clients that want JSON of a schema of 20 properties, against 16 that want any text.

    python -m benchmarks.structured                   # a few minutes on two cores
    python -m benchmarks.structured --repetitions 1 --requests 16 --out /tmp/structured.json

Both get the same prompts and make the same number of tokens: the schema's shortest text is longer than `MAX_TOKENS`. A
server is started for each run, and each repetition begins with the other load. The bar is 0.9 of the tokens per second.
Writes benchmarks/results/structured.json.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.chat_contenders import Hearth
from benchmarks.chat_loads import ClosedLoop, chat_body
from benchmarks.figures import Outcome, summarise
from benchmarks.load import closed_loop, run_traffic
from benchmarks.machine import spread
from benchmarks.prompts import Prompts
from benchmarks.results import STRUCTURED, Section, environment, save_section
from server.loadgen.answer import Body
from server.loadgen.prompts import new_seed

NUM_CLIENTS = 16
MAX_TOKENS = 128
BAR = 0.9

_KINDS: tuple[Section, ...] = (
    {"type": "string", "minLength": 24, "maxLength": 60},
    {"type": "integer", "minimum": 0, "maximum": 9999},
    {"type": "string", "enum": ["red", "green", "blue", "none of these"]},
    {"type": "array", "items": {"type": "number"}, "minItems": 3, "maxItems": 5},
    {"type": "boolean"},
)
_NAMES = (  # noqa: SIM905  # forty quotes would not read better
    "title summary author_name page_count colour prices is_public subtitle review rating_count accent sizes is_signed "
    "publisher shelf edition cover weights is_lent remarks"
).split()
SCHEMA: Section = {
    "type": "object",
    "properties": {name: _KINDS[index % len(_KINDS)] for index, name in enumerate(_NAMES)},
    "required": _NAMES,
    "additionalProperties": False,
}
FORMAT: Section = {"type": "json_schema", "json_schema": {"name": "book", "schema": SCHEMA, "strict": True}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--requests", type=int, default=96)
    parser.add_argument("--out", type=Path, default=STRUCTURED)
    arguments = parser.parse_args()
    outcomes = measure(arguments.repetitions, arguments.requests)
    ratios = [
        structured.figures["tokens_per_s"] / free.figures["tokens_per_s"]
        for structured, free in zip(outcomes["structured"], outcomes["free"], strict=True)
    ]
    section = {
        "environment": environment(),
        "num_clients": NUM_CLIENTS,
        "max_tokens": MAX_TOKENS,
        "num_requests": arguments.requests,
        "servers": {name: summarise(of_load) for name, of_load in outcomes.items()},
        "ratio": spread(ratios),
        "bar": BAR,
        "is_reached": statistics.median(ratios) >= BAR,
    }
    save_section(section, "structured", path=arguments.out)
    print(f"structured / free tokens per second: {section['ratio']}; bar {BAR}", flush=True)


@dataclass(frozen=True, kw_only=True)
class StructuredLoop(ClosedLoop):
    """A closed loop, before which the grammar is compiled: its time is a figure of its own."""

    def run(self, port: int, prompts: Prompts, num_requests: int) -> Outcome:
        started_s = time.perf_counter()
        run_traffic(closed_loop(port, [{**structured_body(prompts), "max_tokens": 1}], num_clients=1))
        first_s = time.perf_counter() - started_s
        outcome = super().run(port, prompts, num_requests)
        return replace(outcome, figures={**outcome.figures, "first_answer_s": first_s})


def free_body(prompts: Prompts) -> Body:
    return chat_body(f"Describe a book about this, in JSON. {prompts.words(60)}", max_tokens=MAX_TOKENS)


def structured_body(prompts: Prompts) -> Body:
    return {**free_body(prompts), "ignore_eos": False, "response_format": FORMAT}


LOADS = (
    ClosedLoop(
        name="free",
        title="16 clients, any text",
        figure="tokens_per_s",
        num_requests=96,
        num_clients=NUM_CLIENTS,
        bodies=lambda prompts, count: [free_body(prompts) for _ in range(count)],
    ),
    StructuredLoop(
        name="structured",
        title="16 clients, JSON of a schema with 20 properties",
        figure="tokens_per_s",
        num_requests=96,
        num_clients=NUM_CLIENTS,
        bodies=lambda prompts, count: [structured_body(prompts) for _ in range(count)],
    ),
)


def measure(repetitions: int, num_requests: int) -> dict[str, list[Outcome]]:
    """Both loads in turn; the order changes every time."""
    seed = new_seed()
    outcomes: dict[str, list[Outcome]] = {load.name: [] for load in LOADS}
    for repetition in range(repetitions):
        for load in LOADS if repetition % 2 == 0 else reversed(LOADS):
            outcome = Hearth().measure(load, Prompts(seed + repetition), num_requests)
            outcomes[load.name].append(outcome)
            print(f"{load.name}: {outcome.figures['tokens_per_s']:.1f} tokens/s {outcome.errors}", flush=True)
    return outcomes


if __name__ == "__main__":
    main()
