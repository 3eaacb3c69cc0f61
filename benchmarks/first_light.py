"""A newcomer's first minutes, timed: a fresh clone with an empty home, `make serve`, four requests, again, `make test`.

    python -m benchmarks.first_light            # about eight minutes on two cores; writes results/first_light.json

What the machine has already (a compiler, say) it keeps; what Hearth keeps in the user's cache is not there at first.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from benchmarks.load import HOST
from benchmarks.machine import describe_machine, describe_versions, now
from benchmarks.servers import free_port

ROOT = Path(__file__).resolve().parents[1]
PORT = free_port()
URL = f"http://{HOST}:{PORT}"
DEADLINE_S = 1800.0

REQUESTS: dict[str, dict[str, object]] = {
    "/v1/chat/completions": {
        "model": "smollm2-135m-instruct",
        "temperature": 0,
        "messages": [{"role": "user", "content": "What is gravity? Answer in one sentence."}],
    },
    "/v1/embeddings": {"model": "all-minilm-l6-v2", "input": ["a warm hearth", "a cold cellar"]},
    "/v1/rerank": {
        "model": "ms-marco-minilm-l12-v2",
        "query": "what is a hearth?",
        "documents": ["The stock market fell.", "A hearth is the floor of a fireplace."],
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "first_light.json")
    arguments = parser.parse_args()
    machine = describe_machine()
    with tempfile.TemporaryDirectory(prefix="first-light-") as folder:
        clone, home = Path(folder) / "hearth", Path(folder) / "home"
        home.mkdir()
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        figures = measure(clone, clean_environment(os.environ, home))
    report = {"date": now(), "machine": machine, "versions": describe_versions(), **figures}
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


def measure(clone: Path, environment: Mapping[str, str]) -> dict[str, object]:
    with serving(clone, environment, "first.log") as (first_health_s, first_ready_s):
        answers = {path: httpx.post(URL + path, json=body, timeout=120).status_code for path, body in REQUESTS.items()}
    set_up = (clone / "first.log").read_text()
    with serving(clone, environment, "second.log") as (second_health_s, second_ready_s):
        pass
    started = time.monotonic()
    tests = subprocess.run(["make", "test"], cwd=clone, env=environment, capture_output=True, text=True, check=False)
    if tests.returncode:
        print(tests.stdout[-10_000:])
    return {
        "first_serve": {"answers_s": first_health_s, "models_ready_s": first_ready_s, "steps_s": steps_of(set_up)},
        "answers": answers,
        "second_serve": {"answers_s": second_health_s, "models_ready_s": second_ready_s},
        "make_test": {
            "seconds": round(time.monotonic() - started, 1),
            "exit_code": tests.returncode,
            "closing_line": tests.stdout.strip().splitlines()[-1],
        },
    }


@contextmanager
def serving(clone: Path, environment: Mapping[str, str], log: str) -> Iterator[tuple[float, float]]:
    """Run `make serve` until the block ends; yield the seconds until it answered and until its models were ready."""
    started = time.monotonic()
    with (clone / log).open("w") as output:
        process = subprocess.Popen(
            ["make", "serve", f"ARGS=--port {PORT}"],
            cwd=clone, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            seconds = [round(wait_for(path, process) - started, 1) for path in ("/health", "/ready")]
            yield seconds[0], seconds[1]
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)


def wait_for(path: str, process: subprocess.Popen[bytes]) -> float:
    """Return when `path` answered 200 for the first time, on the monotonic clock."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(URL + path, timeout=5).status_code == 200:
                return time.monotonic()
        except httpx.TransportError:
            pass  # not listening yet
        time.sleep(0.1)
    raise RuntimeError(f"{path} never answered; make serve ended with {process.returncode}")


def steps_of(log: str) -> dict[str, float]:
    """Seconds of each set-up step, from `[1/5] title ... result, 2.1 s` (the result may be lines later)."""
    steps = re.findall(r"^\[\d/\d\] (.+?) \.\.\.(?:.*?), ([\d.]+) s$", log, re.MULTILINE | re.DOTALL)
    return {title: float(seconds) for title, seconds in steps}


def clean_environment(environ: Mapping[str, str], home: Path) -> dict[str, str]:
    """Nothing but where programs are and how pip reaches packages."""
    kept = {name: value for name, value in environ.items() if name == "PATH" or name.startswith("PIP_")}
    return {**kept, "HOME": str(home), "LANG": "C.UTF-8"}


if __name__ == "__main__":
    main()
