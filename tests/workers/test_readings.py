"""What the metrics are told of models and their workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest

from server.config.schema import ModelConfig
from server.config.server_section import Limits
from server.types import EncoderCounts, EngineCounts
from server.workers.client import WorkerClient
from server.workers.messages import Heartbeat
from server.workers.readings import model_reading, resident_bytes
from server.workers.supervisor import Supervisor
from tests.fakes.scripted import scripted, spec_factory, until, until_true

CHAT = ModelConfig(id="talker", kind="chat", backend="llama_cpp", source="file:x.gguf")


@pytest.fixture
async def supervisor() -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(Limits(load_wait_s=20))
    yield supervisor
    await supervisor.stop()


def client() -> WorkerClient:
    return WorkerClient(CHAT, Limits(), request_load=lambda: None)


async def test_a_worker_is_told_of_and_its_deaths_are_counted(supervisor: Supervisor) -> None:
    config = scripted()
    model = supervisor.add(config, spec_factory(config))
    [before] = supervisor.readings()
    supervisor.load(config.id)
    await until("ready", model)
    [alive] = supervisor.readings()
    pid = supervisor.pid(config.id)
    assert pid is not None

    os.kill(pid, signal.SIGKILL)
    await until_true(lambda: supervisor.readings()[0].num_restarts == 1)

    assert (before.state, before.resident_bytes, before.num_running) == ("unloaded", None, None)
    assert (alive.state, alive.num_restarts, alive.num_running) == ("ready", 0, 0)
    assert (alive.resident_bytes or 0) > 1 << 20


async def test_what_a_heartbeat_says_is_passed_on() -> None:
    talker = client()
    talker.set_state("ready")
    counts = EngineCounts(num_steps=9, num_tokens=70, num_cells=100, num_used_cells=25, num_prefix_tokens=8)
    talker.note_heartbeat(Heartbeat(num_steps=9, busy_s=0, num_running=2, num_waiting=1, generated=counts))

    reading = model_reading(CHAT, talker, pid=None, num_restarts=0)

    assert (reading.num_running, reading.num_waiting) == (2, 1)
    assert (reading.num_batches, reading.num_batch_tokens) == (9, 70)
    assert (reading.used_cells, reading.num_cells, reading.num_prefix_tokens) == (25, 100, 8)
    assert reading.num_padding_tokens is None


async def test_what_is_known_of_a_worker_goes_with_it() -> None:
    talker = client()
    talker.set_state("ready")
    encoded = EncoderCounts(num_batches=3, num_tokens=30, num_padding_tokens=3)
    talker.note_heartbeat(Heartbeat(num_steps=9, busy_s=0, num_running=2, encoded=encoded))
    assert model_reading(CHAT, talker, pid=None, num_restarts=0).num_padding_tokens == 3

    talker.detach()

    reading = model_reading(CHAT, talker, pid=None, num_restarts=1)
    assert (reading.num_running, reading.num_batches, reading.num_padding_tokens) == (None, None, None)


def test_a_process_that_has_ended_has_no_memory() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()

    assert resident_bytes(child.pid) is None
    assert (resident_bytes(os.getpid()) or 0) > 1 << 20
