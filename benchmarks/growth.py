"""Growth: does memory grow with the requests served, and a step's time with what is merely cached?

    python -m benchmarks.growth                   # about eight minutes on two cores

- Memory of the process tree over 2,000 short requests of 16 clients, taken after each hundred.
- Step time of a stream that runs alone, on an empty cache and on one that idle prefixes have filled, for each layout.

Writes the section `growth` of benchmarks/results/chat.json.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from benchmarks.chat_contenders import THREADS, WEIGHTS
from benchmarks.chat_loads import MODEL_ID, chat_body
from benchmarks.load import Traffic, closed_loop, run_traffic
from benchmarks.prompts import Prompts
from benchmarks.results import CHAT, Section, environment, save_section
from benchmarks.servers import RunningServer, hearth
from server.loadgen.answer import Body
from server.loadgen.figures import percentiles
from server.loadgen.prompts import new_seed

NUM_CLIENTS = 16
NUM_CELLS = 8192
CONTEXT = NUM_CELLS // NUM_CLIENTS
SAMPLE_EVERY = 100
NUM_STREAMS = 5
NUM_FILLING_WORDS = 400
NUM_FILLING = 20
"""Prompts of about 460 tokens: somewhat more than the cells hold."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=CHAT)
    arguments = parser.parse_args()
    section = {
        "environment": environment(),
        "num_cells": NUM_CELLS,
        "memory": memory(arguments.requests),
        "steps_ms": {layout: steps_ms(layout) for layout in ("unified", "streams")},
    }
    print({name: value for name, value in section.items() if name != "environment"})
    save_section(section, "growth", path=arguments.out)


def memory(num_requests: int) -> Section:
    """Resident memory in MB after each `SAMPLE_EVERY` requests, and how it grows in the later half of them."""
    prompts = Prompts(new_seed())
    with hearth(model("auto")) as server:
        rss_mb = [server.rss_bytes / 1e6]
        for _ in range(num_requests // SAMPLE_EVERY):
            send(server, [short_body(prompts) for _ in range(SAMPLE_EVERY)])
            rss_mb.append(server.rss_bytes / 1e6)
        runtime = dict(server.runtime)
    return {
        "num_requests": num_requests,
        "rss_mb": [round(value, 1) for value in rss_mb],
        "rss_mb_per_1000_requests": round(slope(rss_mb[len(rss_mb) // 2 :]) * 1000 / SAMPLE_EVERY, 3),
        "runtime": runtime,
    }


def steps_ms(layout: str) -> dict[str, float]:
    prompts = Prompts(new_seed())
    with hearth(model(layout)) as server:
        empty_s = step_s(server, prompts)
        send(server, [chat_body(prompts.words(NUM_FILLING_WORDS), max_tokens=1) for _ in range(NUM_FILLING)])
        full_s = step_s(server, prompts)
    return {"empty": round(empty_s * 1000, 3), "full": round(full_s * 1000, 3)}


def step_s(server: RunningServer, prompts: Prompts) -> float:
    """Median gap between the chunks of a stream that runs alone."""
    bodies = [chat_body(prompts.words(20), max_tokens=48) for _ in range(NUM_STREAMS)]
    traffic = send(server, bodies, num_clients=1)
    return percentiles("gap", [gap for answer in traffic.answers for gap in answer.gaps_s], 50)["gap_p50_s"]


def short_body(prompts: Prompts) -> Body:
    """About 20 tokens: a system message of one word keeps the template from adding its own."""
    body = chat_body("", max_tokens=4)
    return body | {"messages": [{"role": "system", "content": "."}, {"role": "user", "content": prompts.words(8)}]}


def model(layout: str) -> dict[str, object]:
    return {
        "id": MODEL_ID,
        "kind": "chat",
        "backend": "llama_cpp",
        "source": f"file:{WEIGHTS}",
        "threads": THREADS,
        "context": CONTEXT,
        "kv_cells": NUM_CELLS,
        "max_sequences": NUM_CLIENTS,
        "kv": layout,
    }


def send(server: RunningServer, bodies: list[Body], *, num_clients: int = NUM_CLIENTS) -> Traffic:
    """Send them all; none may fail, or the figures would not mean what they say."""
    traffic = run_traffic(closed_loop(server.port, bodies, num_clients=num_clients))
    errors = [answer.error for answer in traffic.answers if answer.error]
    if errors:
        raise RuntimeError(f"{len(errors)} of {len(bodies)} requests failed: {errors[0]}")
    return traffic


def slope(values: list[float]) -> float:
    """Least-squares growth from one value to the next."""
    return statistics.linear_regression(range(len(values)), values).slope


if __name__ == "__main__":
    main()
