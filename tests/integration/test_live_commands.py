"""The commands that talk to a running server, as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.server_process import ServerProcess
from tests.integration.conftest import RunHearth
from tests.integration.live_models import CHAT, EMBEDDING, RERANK

pytestmark = pytest.mark.integration


def test_chat_answers_a_question(live_server: ServerProcess, run_hearth: RunHearth) -> None:
    question = "Write one sentence about cats."

    done = run_hearth("chat", "--url", live_server.url, "--max-tokens", "16", "--temperature", "0", question)

    assert (done.returncode, done.stderr) == (0, "")
    assert "cat" in done.stdout


def test_chat_reads_the_question_from_a_pipe(live_server: ServerProcess, run_hearth: RunHearth) -> None:
    done = run_hearth("chat", "--url", live_server.url, "--model", "script", stdin="hello there")

    assert (done.returncode, done.stdout) == (0, "you said hello there\n")


def test_chat_tells_a_crash_on_a_line_of_its_own(live_server: ServerProcess, run_hearth: RunHearth) -> None:
    done = run_hearth("chat", "--url", live_server.url, "--model", "script", "crash")

    assert (done.returncode, done.stdout) == (1, "half an \n")
    assert done.stderr.startswith("error: the worker of model 'script' ended")


def test_chat_with_a_broken_model_says_why(live_server: ServerProcess, run_hearth: RunHearth) -> None:
    done = run_hearth("chat", "--url", live_server.url, "--model", "corrupt", "hi")

    assert (done.returncode, done.stdout) == (1, "")
    assert "corrupt.gguf" in done.stderr and len(done.stderr.splitlines()) == 1


def test_embed_prints_one_vector_per_line(live_server: ServerProcess, run_hearth: RunHearth) -> None:
    done = run_hearth("embed", "--url", live_server.url, stdin="a red cat\na blue car\n")

    vectors = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, [len(vector) for vector in vectors]) == (0, [384, 384])


def test_rerank_prints_the_best_first(live_server: ServerProcess, run_hearth: RunHearth) -> None:
    documents = ["Bananas are yellow.", "Paris is the capital of France."]

    done = run_hearth("rerank", "--url", live_server.url, "capital of France", *documents)

    assert done.returncode == 0
    assert [line.split("  ", 1)[1] for line in done.stdout.splitlines()] == documents[::-1]


def test_ps_shows_states_and_reasons(live_server: ServerProcess, run_hearth: RunHearth) -> None:
    done = run_hearth("ps", "--url", live_server.url)

    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert done.returncode == 0
    assert all("ready" in lines[name] for name in (CHAT, EMBEDDING, RERANK))
    assert "absent.gguf does not exist" in lines["absent:"]


def test_ps_json_is_for_programs(live_server: ServerProcess, run_hearth: RunHearth) -> None:
    done = run_hearth("ps", "--url", live_server.url, "--json")

    states = {model["id"]: model["state"] for model in json.loads(done.stdout)}
    assert (done.returncode, states[CHAT], states["corrupt"]) == (0, "ready", "failed")


@pytest.mark.parametrize("command", [["ps"], ["chat", "hi"], ["embed", "hi"], ["rerank", "a", "b"]], ids=lambda c: c[0])
def test_without_a_server_there_is_one_line(run_hearth: RunHearth, command: list[str]) -> None:
    done = run_hearth(*command, "--url", "http://127.0.0.1:9")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: no server answers at http://127.0.0.1:9; start one with `hearth serve`\n"


def test_config_check_finds_what_is_missing(live_config: Path, script_config: Path, run_hearth: RunHearth) -> None:
    right = run_hearth("config", "check", str(script_config))
    wrong = run_hearth("config", "check", str(live_config))

    assert (right.returncode, right.stderr) == (0, "")
    assert (wrong.returncode, len(wrong.stderr.splitlines())) == (2, 1)
    assert "models.absent.source" in wrong.stderr and "there is no such file" in wrong.stderr


def test_config_show_says_where_values_come_from(script_config: Path, run_hearth: RunHearth) -> None:
    done = run_hearth("config", "show", "--origin", "--config", str(script_config), "--host", "localhost")

    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert done.returncode == 0
    assert lines["server.host"].endswith("flag --host")
    assert "models.yaml:" in lines["server.port"]
    assert lines["server.log_level"].endswith("default")


def test_doctor_finds_the_absent_weights_and_a_remedy(live_config: Path, run_hearth: RunHearth) -> None:
    done = run_hearth("doctor", "--json", "--config", str(live_config))

    findings = {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert done.returncode == 1
    assert findings[f"model {CHAT}"]["ok"] and findings["self-test"]["ok"]
    assert "absent.gguf does not exist" in findings["model absent"]["value"]
    assert findings["model absent"]["remedy"]
