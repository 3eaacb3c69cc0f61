"""Real worker processes, of scripted models and of odd ones: no weights, but all that can happen to a process."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest

from server.config.schema import ModelConfig
from server.config.script_section import ScriptedError, ScriptRule
from server.config.server_section import Limits
from server.errors import DeadlineExceeded, InvalidRequest, ModelUnavailable, WeightsError, WorkerCrashed
from server.telemetry.metrics import ModelReading
from server.types import Delta, RenderedPart, TokensPrompt, Urgency
from server.workers import keeper, watch
from server.workers.client import WorkerClient
from server.workers.keeper import SpecFactory
from server.workers.messages import WorkerSpec
from server.workers.supervision_policy import SupervisionPolicy
from server.workers.supervisor import Supervisor
from tests.fakes.scripted import answer, ends_within, request, scripted, spec_factory, until, until_true

ENDLESS = ScriptRule(match="endless", text="word " * 10_000, delay_ms=5)
DEADLY = ScriptRule(match="die", text="last words", error=ScriptedError(code="worker_crashed"))
PLAIN = ScriptRule(text="one two three")
MakeSupervisor = Callable[..., Supervisor]


@pytest.fixture
async def make_supervisor() -> AsyncIterator[MakeSupervisor]:
    """Supervisors that lose patience as the test says, and are stopped at its end."""
    made: list[Supervisor] = []

    def make(**policy: float) -> Supervisor:
        defaults = {"first_backoff_s": 0.01, "max_backoff_s": 0.05}
        made.append(Supervisor(Limits(load_wait_s=20), SupervisionPolicy(**{**defaults, **policy})))  # type: ignore[arg-type]  # some are counts
        return made[-1]

    yield make
    for supervisor in made:
        await supervisor.stop()


def start(supervisor: Supervisor, config: ModelConfig, make_spec: SpecFactory | None = None) -> WorkerClient:
    client = supervisor.add(config, make_spec or spec_factory(config))
    supervisor.load(config.id)
    return client


def pid_of(supervisor: Supervisor, model_id: str) -> int:
    pid = supervisor.pid(model_id)
    assert pid is not None
    return pid


async def test_a_model_gets_ready_and_answers(make_supervisor: MakeSupervisor) -> None:
    client = start(make_supervisor(), scripted())
    assert client.state == "loading"

    await until("ready", client)

    assert await answer(client) == "one two three"
    assert client.facts is not None
    assert client.facts.architecture == "script"


async def test_a_chat_model_tells_the_token_ids_of_texts_and_prompts(make_supervisor: MakeSupervisor) -> None:
    client = start(make_supervisor(), scripted())

    text, prompt = await client.token_ids(["one two", request("one two").prompt])
    with pytest.raises(InvalidRequest, match="no vocabulary"):
        await client.token_ids([TokensPrompt([1])])

    with pytest.raises(InvalidRequest, match="no vocabulary"):
        await client.token_pieces([1])
    rendered = await client.render(request("one two").prompt)

    assert len(text) == 2
    assert prompt == text
    assert (rendered.parts, rendered.token_ids) == ([RenderedPart("one two", False)], text)


async def test_a_script_that_takes_longer_than_its_request_allows_fails(make_supervisor: MakeSupervisor) -> None:
    client = start(make_supervisor(), scripted("actor", ENDLESS))
    hurried = msgspec.structs.replace(request("endless"), urgency=Urgency(timeout_s=0.2))
    await until("ready", client)

    with pytest.raises(DeadlineExceeded, match=r"timeout_s = 0\.2"):
        await answer(client, msgspec.structs.replace(hurried, arrived_at=time.monotonic()))


async def test_a_lazy_model_loads_at_its_first_request(make_supervisor: MakeSupervisor) -> None:
    supervisor = make_supervisor()
    client = supervisor.add(scripted(), spec_factory(scripted()))
    assert (client.state, supervisor.pid("actor")) == ("unloaded", None)

    assert await answer(client) == "one two three"


async def test_a_killed_worker_ends_its_streams_and_serves_again(make_supervisor: MakeSupervisor) -> None:
    supervisor = make_supervisor()
    client = start(supervisor, scripted("actor", ENDLESS, PLAIN))
    neighbour = start(supervisor, scripted("neighbour", ENDLESS))
    stream = client.generate(request("endless"))
    stream_beside = neighbour.generate(request("endless"))
    await anext(stream), await anext(stream_beside)
    pid_beside = supervisor.pid("neighbour")

    killed = time.monotonic()
    os.kill(pid_of(supervisor, "actor"), signal.SIGKILL)
    with pytest.raises(WorkerCrashed, match="'actor'"):
        async for _ in stream:
            pass

    assert time.monotonic() - killed < 2
    assert await answer(client) == "one two three"
    said = [await anext(stream_beside) for _ in range(3)]
    assert any(isinstance(event, Delta) for event in said)
    assert (neighbour.state, supervisor.pid("neighbour")) == ("ready", pid_beside)
    await stream_beside.aclose()


async def test_a_stopped_worker_is_replaced(make_supervisor: MakeSupervisor) -> None:
    """SIGSTOP: the process exists and its socket is open, but its heart does not beat."""
    supervisor = make_supervisor(heartbeat_timeout_s=1.0)
    client = start(supervisor, scripted("actor", ENDLESS, PLAIN))
    stream = client.generate(request("endless"))
    await anext(stream)
    pid = pid_of(supervisor, "actor")

    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(WorkerCrashed):
        async for _ in stream:
            pass

    assert ends_within(pid, 2)
    assert await answer(client) == "one two three"


async def test_a_pause_of_the_server_itself_kills_no_worker(make_supervisor: MakeSupervisor) -> None:
    """As after Ctrl-Z and fg, or in a container that was paused: every timeout has passed, and nobody was at fault."""
    supervisor = make_supervisor(heartbeat_timeout_s=0.7)
    client = start(supervisor, scripted())
    await until("ready", client)
    pid = supervisor.pid("actor")

    time.sleep(0.7 + watch._STALL_S + 0.2)  # noqa: ASYNC251  # the loop standing still is the point
    await asyncio.sleep(0.05)

    assert (client.state, supervisor.pid("actor")) == ("ready", pid)


async def test_a_worker_that_keeps_dying_fails_with_a_reason(make_supervisor: MakeSupervisor) -> None:
    client = start(make_supervisor(max_crashes=2), scripted("actor", DEADLY))

    for _ in range(2):
        with pytest.raises(WorkerCrashed):
            await answer(client, request("die"))

    with pytest.raises(ModelUnavailable, match="died 2 times within 60 s, at last: signal SIGKILL"):
        await answer(client)
    assert client.state == "failed"


async def test_a_failed_model_is_tried_once_more_by_a_later_request(make_supervisor: MakeSupervisor) -> None:
    client = start(make_supervisor(max_crashes=2, retry_failed_after_s=0), scripted("actor", DEADLY, PLAIN))
    for _ in range(2):
        with pytest.raises(WorkerCrashed):
            await answer(client, request("die"))
    await until("failed", client)

    assert await answer(client) == "one two three"

    with pytest.raises(WorkerCrashed):
        await answer(client, request("die"))
    await until("failed", client)  # at the first crash this time
    assert client.failure == "its worker died again when it was tried once more: signal SIGKILL"


async def test_a_failed_model_is_not_tried_again_too_soon(make_supervisor: MakeSupervisor) -> None:
    supervisor = make_supervisor(max_crashes=1, retry_failed_after_s=1000)
    client = start(supervisor, scripted("actor", DEADLY))
    with pytest.raises(WorkerCrashed):
        await answer(client, request("die"))
    await until("failed", client)

    with pytest.raises(ModelUnavailable, match="has failed"):
        await answer(client)

    assert supervisor.pid("actor") is None


async def test_weights_that_come_later_are_found_by_a_later_request(make_supervisor: MakeSupervisor) -> None:
    arrived = False

    def make_spec(endpoint: str) -> WorkerSpec:
        if not arrived:
            raise WeightsError("weights are missing")
        return spec_factory(scripted())(endpoint)

    client = start(make_supervisor(retry_failed_after_s=0), scripted(), make_spec)
    await until("failed", client)

    arrived = True

    assert await answer(client) == "one two three"


async def test_a_script_that_waits_long_is_not_hung(make_supervisor: MakeSupervisor) -> None:
    slow = ScriptRule(text="at last", delay_ms=1000)
    client = start(make_supervisor(max_crashes=1, step_timeout_s=0.4), scripted("actor", slow))

    assert await answer(client) == "at last"


async def test_missing_weights_fail_the_model_without_a_process(make_supervisor: MakeSupervisor) -> None:
    def make_spec(_endpoint: str) -> WorkerSpec:
        raise WeightsError("weights are absent; run `hearth pull actor`")

    client = start(make_supervisor(), scripted(), make_spec)

    await until("failed", client)

    assert client.failure == "weights are absent; run `hearth pull actor`"


async def test_a_file_that_is_no_gguf_fails_the_model(make_supervisor: MakeSupervisor, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"<html>not found</html>")
    config = ModelConfig(id="m", kind="chat", backend="llama_cpp", source="file:m.gguf")

    client = start(make_supervisor(), config, spec_factory(config, weights_path=str(tmp_path / "m.gguf")))
    await until("failed", client)

    assert client.failure is not None
    assert "m.gguf is not a GGUF file: it starts with b'<htm'" in client.failure


async def test_a_system_that_starts_no_process_is_tried_again(
    make_supervisor: MakeSupervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    client = start(make_supervisor(max_crashes=2), scripted())

    await until("failed", client)

    assert client.failure is not None
    assert "2 times" in client.failure
    assert "cannot be started" in client.failure


@pytest.fixture
def odd_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripted models run `tests.fakes.odd_worker` instead."""
    monkeypatch.setitem(keeper.MODULE_OF, ("chat", "script"), "tests.fakes.odd_worker")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))


@pytest.mark.usefixtures("odd_workers")
@pytest.mark.parametrize(
    ("oddity", "reason"),
    [
        ("refuses-to-load", "^the file is damaged$"),
        ("fails-to-load", "at last: exit code 1: RuntimeError: first line$"),
        ("fails-to-run", "at last: exit code 1: server.errors.ModelNotFound: a HearthError after the load"),
        ("hangs", "at last: one step has taken 1000000 s"),
        ("has-lost-a-request", "at last: it has had work for 1 s and finished nothing of it"),
        ("babbles", "at last: it sent a message that cannot be read: Invalid value 'abort'"),
    ],
)
async def test_a_worker_that_goes_wrong_fails_with_its_reason(
    make_supervisor: MakeSupervisor, oddity: str, reason: str
) -> None:
    client = start(make_supervisor(max_crashes=1, step_timeout_s=0.9), scripted(oddity))
    await until("failed", client)

    with pytest.raises(ModelUnavailable, match=reason.removeprefix("^")) as caught:
        await answer(client)
    assert caught.value.message == f"model {oddity!r} has failed: {client.failure}"


@pytest.mark.usefixtures("odd_workers")
async def test_a_worker_that_has_lost_a_thread_ends(
    make_supervisor: MakeSupervisor, capfd: pytest.CaptureFixture[str]
) -> None:
    client = start(make_supervisor(max_crashes=1), scripted("cannot-handle"))

    with pytest.raises(WorkerCrashed):
        await answer(client)
    await until("failed", client)

    assert client.failure is not None
    assert client.failure.endswith("exit code 1: RuntimeError: cannot handle anything")
    assert "in handle" in capfd.readouterr().err  # the traceback is in the log


@pytest.mark.usefixtures("odd_workers")
async def test_a_worker_that_does_not_stop_is_killed(make_supervisor: MakeSupervisor) -> None:
    supervisor = make_supervisor(stop_grace_s=0.1)
    await until("ready", start(supervisor, scripted("does-not-stop")))
    pid = pid_of(supervisor, "does-not-stop")

    await supervisor.stop()

    assert ends_within(pid, 0)


async def test_stop_ends_all_workers_and_all_requests(make_supervisor: MakeSupervisor) -> None:
    supervisor = make_supervisor()
    clients = [start(supervisor, scripted(name, ENDLESS)) for name in ("a", "b")]
    streams = [client.generate(request("endless")) for client in clients]
    for stream in streams:
        await anext(stream)
    pids = [pid_of(supervisor, name) for name in ("a", "b")]

    await supervisor.stop()

    assert all(ends_within(pid, 0) for pid in pids)
    for stream in streams:
        with pytest.raises(ModelUnavailable, match="was stopped before this request was done") as caught:
            async for _ in stream:
                pass
        assert not isinstance(caught.value, WorkerCrashed)
    with pytest.raises(ModelUnavailable, match="draining"):
        await answer(clients[0])


async def test_stop_may_be_called_while_it_runs(make_supervisor: MakeSupervisor) -> None:
    supervisor = make_supervisor()
    await until("ready", start(supervisor, scripted()))
    pid = pid_of(supervisor, "actor")

    await asyncio.gather(supervisor.stop(), supervisor.stop())

    assert ends_within(pid, 0)


async def test_stop_does_not_wait_for_a_worker_that_is_starting(make_supervisor: MakeSupervisor) -> None:
    """It is not connected yet, so nobody could tell it to stop."""
    supervisor = make_supervisor()
    client = start(supervisor, scripted())
    await until_true(lambda: supervisor.pid("actor") is not None)
    pid = pid_of(supervisor, "actor")
    waiting = asyncio.create_task(answer(client))

    async with asyncio.timeout(2):
        await supervisor.stop()

    assert ends_within(pid, 0)
    with pytest.raises(ModelUnavailable):
        await waiting


async def test_models_whose_names_begin_alike_have_channels_of_their_own(make_supervisor: MakeSupervisor) -> None:
    supervisor = make_supervisor()
    names = ["x" * 100 + end for end in "ab"]

    clients = [start(supervisor, scripted(name, ScriptRule(text=name[-1]))) for name in names]

    assert [await answer(client) for client in clients] == ["a", "b"]


async def test_a_folder_named_server_beside_the_user_is_not_ours(
    make_supervisor: MakeSupervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "__init__.py").write_text("raise SystemExit('the wrong package')")
    monkeypatch.chdir(tmp_path)

    assert await answer(start(make_supervisor(max_crashes=1), scripted())) == "one two three"


UVLOOP = """
import asyncio, os, signal, uvloop
from server.config.script_section import ScriptRule
from server.config.server_section import Limits
from server.errors import WorkerCrashed
from server.workers.supervisor import Supervisor
from tests.fakes.scripted import answer, request, scripted, spec_factory

async def main():
    config = scripted("actor", ScriptRule(match="endless", text="word " * 1000, delay_ms=5), ScriptRule(text="hi"))
    supervisor = Supervisor(Limits())
    client = supervisor.add(config, spec_factory(config))
    stream = client.generate(request("endless"))
    await anext(stream)
    os.kill(supervisor.pid("actor"), signal.SIGKILL)
    try:
        async for _ in stream:
            pass
    except WorkerCrashed:
        assert await answer(client) == "hi"
        await supervisor.stop()
        print("served again")

uvloop.run(main())
"""


def test_all_this_works_on_uvloop_too() -> None:
    environ = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-W", "error", "-c", UVLOOP]

    ended = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=30, check=False)

    assert ended.stdout == "served again\n", ended.stderr


async def test_models_may_come_while_a_thread_reads_the_others(
    make_supervisor: MakeSupervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = make_supervisor()
    for name in ("a", "b"):
        supervisor.add(scripted(name), spec_factory(scripted(name)))
    reading = keeper.Keeper.reading

    def read_slowly(each: keeper.Keeper) -> ModelReading:
        if each.config.id == "a":
            supervisor.add(scripted("c"), spec_factory(scripted("c")))
        return reading(each)

    monkeypatch.setattr(keeper.Keeper, "reading", read_slowly)

    assert len(supervisor.readings()) == 2
