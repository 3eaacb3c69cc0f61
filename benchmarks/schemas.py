"""A hundred JSON schemas as clients send them, and a model that is too small for all of them: what comes of it?

    python -m benchmarks.schemas                  # some minutes on two cores

Asks the default chat model for an answer to each schema of tests/data/json_schemas, greedily and by chance. An answer
is *valid* if it ended by itself and satisfies its schema, formats included, in the eyes of `jsonschema`; *cut* if
`max_tokens` came first; *silent* if it ended and does not. *Refused* is what was answered with 400 before the first
token. Nothing may be silent, and nothing refused that is not in `refused/`.

Writes benchmarks/results/schemas.json, and ends with 1 if that does not hold.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jsonschema  # type: ignore[import-untyped]  # it has none

from benchmarks.hostile import write_config
from benchmarks.hostile_requests import CHAT, CHATS
from benchmarks.results import SCHEMAS, environment
from benchmarks.server_process import ServerProcess

FOLDER = Path(__file__).resolve().parents[1] / "tests" / "data" / "json_schemas"
NUM_CLIENTS = 8
MAX_TOKENS = 600
CONTEXT = 1024

SAMPLINGS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0},
    "sampled": {"temperature": 1, "min_p": 0.1, "seed": 7},
}


@dataclass(frozen=True)
class Outcome:
    """What became of one schema.

    Attributes:
        kind: "valid", "cut", "silent" or "refused".
        reason: Why it is not valid.
    """

    name: str
    sampling: str
    kind: str
    reason: str = ""
    num_tokens: int = 0


def schemas() -> dict[str, Any]:
    """All of them by name, those that must be refused with their folder's name before it."""
    paths = sorted(FOLDER.rglob("*.json"))
    return {str(path.relative_to(FOLDER).with_suffix("")): json.loads(path.read_text("utf-8")) for path in paths}


def ask(http: httpx.Client, name: str, schema: Any, sampling: str, *, max_tokens: int = MAX_TOKENS) -> Outcome:
    """Have the model answer in the form of a schema."""
    body = {
        "model": CHAT,
        "messages": [{"role": "user", "content": "Make something up, in JSON."}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}},
        "max_tokens": max_tokens,
        **SAMPLINGS[sampling],
    }
    response = http.post(CHATS, json=body)
    if response.status_code == 400:
        return Outcome(name, sampling, "refused", response.json()["error"]["message"])
    answer = response.raise_for_status().json()
    [choice] = answer["choices"]
    num_tokens = answer["usage"]["completion_tokens"]
    if choice["finish_reason"] == "length":
        return Outcome(name, sampling, "cut", num_tokens=num_tokens)
    fault = fault_of(choice["message"]["content"], schema)
    return Outcome(name, sampling, "silent" if fault else "valid", fault, num_tokens)


def fault_of(text: str, schema: Any) -> str:
    """What is wrong with an answer; empty if it satisfies the schema."""
    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        kind(schema, format_checker=kind.FORMAT_CHECKER).validate(json.loads(text))
    except (ValueError, jsonschema.ValidationError) as exc:
        return f"{str(exc).splitlines()[0]} in {text[:300]}"
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=SCHEMAS)
    arguments = parser.parse_args()
    started, started_s = environment(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        config = write_config(Path(folder), context=CONTEXT)
        with ServerProcess(config, Path(folder) / "log") as server:
            server.wait_until_settled()
            outcomes = measure(server.url)
    counts = {sampling: Counter(each.kind for each in outcomes if each.sampling == sampling) for sampling in SAMPLINGS}
    wrong = [each for each in outcomes if (each.kind == "refused") != each.name.startswith("refused/")]
    silent = [each for each in outcomes if each.kind == "silent"]
    section = {
        **started,
        "seconds": round(time.perf_counter() - started_s, 1),
        "max_tokens": MAX_TOKENS,
        "counts": {sampling: dict(counted) for sampling, counted in counts.items()},
        "schemas": [vars(each) for each in outcomes],
    }
    arguments.out.write_text(json.dumps(section, indent=1) + "\n", encoding="utf-8")
    for each in [*silent, *wrong]:
        print(f"FAULT: {each}")
    print(f"{section['counts']}; written to {arguments.out}")
    sys.exit(bool(silent or wrong))


def measure(url: str) -> list[Outcome]:
    asked = [(name, schema, sampling) for name, schema in schemas().items() for sampling in SAMPLINGS]
    with httpx.Client(base_url=url, timeout=1800) as http, ThreadPoolExecutor(NUM_CLIENTS) as pool:
        return list(pool.map(lambda each: ask(http, *each), asked))


if __name__ == "__main__":
    main()
