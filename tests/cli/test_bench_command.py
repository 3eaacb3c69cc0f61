"""`hearth bench` against a server of a few lines: what it prints and writes, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from server.cli.exit_codes import ExitCode
from server.cli.main import app
from tests.fakes.upstream import HANG, Request, an_api, as_json, plain, upstream_in_thread

ROOT = Path(__file__).parents[2]
QUICK = ("--seconds", "0.1", "--input-tokens", "20", "--answer-tokens", "5")
ONE = ("--clients", "1", *QUICK)


def bench(*arguments: str, environ: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(app, ["bench", *arguments], env={"COLUMNS": "200", **(environ or {})})


def test_a_table_tells_what_each_number_of_clients_saw() -> None:
    with upstream_in_thread(an_api) as server:
        result = bench(server.url, "--clients", "1,2", *QUICK)

    assert result.exit_code == ExitCode.DONE, result.output
    first, head, *rows = result.stdout.splitlines()
    assert first == f"chat model a-model at {server.url}"
    assert head.split()[:5] == ["CLIENTS", "DONE", "FAILED", "TOK/S", "REQ/S"]
    assert [row.split()[0] for row in rows[:2]] == ["1", "2"]
    assert "inputs of 20 tokens, answers of 5" in result.stdout
    assert "most tokens/s:" in result.stdout


def test_json_has_settings_versions_and_figures(tmp_path: Path) -> None:
    entry = {"id": "m", "kind": "embedding", "runtime": {"kernel": "onnx"}}

    def hearth(request: Request) -> Iterable[bytes]:
        known = {"/version": {"version": "9.9"}, "/v1/models": {"data": [{"id": "c", "kind": "chat"}, entry]}}
        return [as_json(known[request.path])] if request.path in known else an_api(request)

    with upstream_in_thread(hearth) as server:
        result = bench(server.url, "--model", "m", "--clients", "2", "--json", *QUICK)

    report: dict[str, Any] = json.loads(result.stdout)
    assert (report["kind"], report["model"], report["is_complete"]) == ("embedding", "m", True)
    assert report["server"] == {"version": {"version": "9.9"}, "model": entry}
    assert report["settings"] == {
        **{"clients": [2], "seconds": 0.1, "timeout_s": 300, "prompts": "random"},
        **{"input_tokens": 20, "answer_tokens": 5, "batch": 8},
    }
    [level] = report["levels"]
    assert level["figures"]["items_per_s"] > 0
    assert level["num_errors"] == 0


def test_a_key_opens_the_door_and_is_written_nowhere(tmp_path: Path) -> None:
    def locked(request: Request) -> Iterable[bytes]:
        is_right = request.headers.get("authorization") == "Bearer sk-secret"
        return an_api(request) if is_right else [plain("401 Unauthorized", b"no key")]

    key_file, out = tmp_path / "key", tmp_path / "found.json"
    key_file.write_text("sk-secret\n")
    with upstream_in_thread(locked) as server:
        without = bench(server.url, *QUICK)
        ways = [
            bench(
                server.url, "--clients", "1", "--out", str(out), *QUICK, environ={"HEARTH_API_KEY_FILE": str(key_file)}
            ),
            bench(server.url, *ONE, environ={"HEARTH_API_KEY": "sk-secret"}),
            bench(server.url, *ONE, "--api-key", "sk-secret"),
        ]

    assert (without.exit_code, [way.exit_code for way in ways]) == (1, [0, 0, 0])
    assert "status 401" in without.output
    assert "sk-secret" not in "".join(way.output for way in ways) + out.read_text()


def test_the_picture_is_a_png(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with upstream_in_thread(an_api) as server:
        result = bench(server.url, "--clients", "1,2", "--out", str(tmp_path / "found.json"), *QUICK)

    assert result.exit_code == ExitCode.DONE, result.output
    assert (tmp_path / "found.png").read_bytes().startswith(b"\x89PNG")
    assert len(json.loads((tmp_path / "found.json").read_text())["levels"]) == 2


def test_without_matplotlib_there_is_all_but_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    with upstream_in_thread(an_api) as server:
        result = bench(server.url, *ONE, "--out", str(tmp_path / "found.json"))

    assert result.exit_code == ExitCode.DONE
    assert "found.png was not written: install matplotlib, which is in the extra `bench`" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["found.json"]


def test_given_prompts_are_what_is_sent(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('plain words\n{"prompt": "asked"}\n{"messages": [{"role": "user", "content": "said"}]}\n')
    with upstream_in_thread(an_api) as server:
        result = bench(server.url, *ONE, "--prompts", str(prompts))

    said = {each.body["messages"][0]["content"] for each in server.requests if each.body}
    assert said == {"plain words", "asked", "said"}, result.output


@pytest.mark.parametrize(
    ("kind", "line"),
    [("chat", '{"text": 1}'), ("chat", "{"), ("embedding", '{"prompt": "a"}'), ("rerank", "words"), ("chat", "")],
)
def test_a_wrong_line_is_named(tmp_path: Path, kind: str, line: str) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(line)
    with upstream_in_thread(an_api) as server:
        result = bench(server.url, "--kind", kind, "--prompts", str(prompts), *QUICK)

    assert result.exit_code == ExitCode.WRONG_INPUT
    assert f"{prompts}:1:" in result.stderr if line else "has no prompts" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [("--clients", "1,x"), ("--clients", "0"), ("--clients", ""), ("--kind", "images"), ("--api-key", "two words")],
)
def test_a_wrong_command_line_asks_nobody(arguments: tuple[str, str]) -> None:
    with upstream_in_thread(an_api) as server:
        result = bench(server.url, *arguments)

    assert (result.exit_code, server.requests) == (ExitCode.WRONG_INPUT, [])
    assert result.stderr.startswith("error: ")


def test_nobody_there_is_one_line() -> None:
    with upstream_in_thread(an_api) as server:
        url = server.url

    result = bench(url, *QUICK)

    assert result.exit_code == ExitCode.FAILED
    assert result.stderr.startswith(f"error: no server answers at {url}")


def test_a_server_without_a_list_needs_a_name() -> None:
    def no_list(request: Request) -> Iterable[bytes]:
        return [plain("404 Not Found")] if request.method == "GET" else an_api(request)

    with upstream_in_thread(no_list) as server:
        unnamed, named = bench(server.url, *QUICK), bench(server.url, "--model", "m", *ONE)

    assert (unnamed.exit_code, named.exit_code) == (ExitCode.FAILED, ExitCode.DONE)
    assert "name one with --model" in unnamed.stderr


def test_a_server_that_breaks_down_is_told_with_its_words() -> None:
    count = 0

    def breaking(request: Request) -> Iterable[bytes]:
        nonlocal count
        count += request.method == "POST"
        return an_api(request) if count <= 2 else [plain("500 Oops", b"out of luck")]

    with upstream_in_thread(breaking) as server:
        result = bench(server.url, *QUICK)

    assert result.exit_code == ExitCode.FAILED
    assert "1 client: status 500: out of luck" in result.stdout


def test_ctrl_c_prints_what_there_is() -> None:
    is_stuck = threading.Event()
    count = 0

    def answers(request: Request) -> Iterable[bytes]:
        nonlocal count
        count += request.method == "POST"
        if count <= 5:
            return an_api(request)
        is_stuck.set()
        return [HANG]

    with upstream_in_thread(answers) as server:
        # Who runs these tests in the background of a script has Ctrl-C ignored, which children inherit.
        program = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        program += "from server.cli.main import main; main()"
        command = [sys.executable, "-c", program, "bench", server.url]
        process = subprocess.Popen(
            [*command, "--clients", "1,2", "--seconds", "60"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        )
        try:
            assert is_stuck.wait(60)
            process.send_signal(signal.SIGINT)
            stdout, stderr = process.communicate(timeout=30)
        finally:
            process.kill()
            process.wait()

    assert process.returncode == ExitCode.INTERRUPTED, stderr
    row = stdout.splitlines()[2].split()
    assert row[:2] == ["1*", "3"]
    assert "interrupted: * marks a level that was not measured to its end" in stdout
