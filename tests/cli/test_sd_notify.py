from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.cli.sd_notify import ServiceManager


@pytest.fixture
def manager_socket(tmp_path: Path) -> Iterator[socket.socket]:
    """What systemd listens on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(5)
        yield listener


def environ_of(listener: socket.socket, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": listener.getsockname(), **more}


def test_systemd_hears_of_every_state(manager_socket: socket.socket) -> None:
    manager = ServiceManager.of(environ_of(manager_socket))

    manager.say_ready()
    manager.say_reloading()
    manager.say_stopping()

    heard = [manager_socket.recv(100).decode() for _ in range(3)]
    assert heard[0] == "READY=1"
    assert heard[1].startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert heard[2] == "STOPPING=1"


def test_an_abstract_socket_is_spoken_to() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0hearth-test-{os.getpid()}")
        listener.settimeout(5)

        ServiceManager.of({"NOTIFY_SOCKET": f"@hearth-test-{os.getpid()}"}).say_ready()

        assert listener.recv(100) == b"READY=1"


async def test_the_watchdog_is_fed_more_often_than_it_asks_for(manager_socket: socket.socket) -> None:
    manager = ServiceManager.of(environ_of(manager_socket, WATCHDOG_USEC="30000", WATCHDOG_PID=str(os.getpid())))
    feeding = asyncio.create_task(manager.keep_content())

    heard = [await asyncio.to_thread(manager_socket.recv, 100) for _ in range(3)]

    feeding.cancel()
    assert heard == [b"WATCHDOG=1"] * 3


@pytest.mark.parametrize("more", [{}, {"WATCHDOG_USEC": "30000", "WATCHDOG_PID": "1"}])
async def test_a_watchdog_that_is_not_ours_is_not_fed(manager_socket: socket.socket, more: dict[str, str]) -> None:
    await ServiceManager.of(environ_of(manager_socket, **more)).keep_content()

    manager_socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager_socket.recv(100)


async def test_without_systemd_nothing_happens(caplog: pytest.LogCaptureFixture) -> None:
    manager = ServiceManager.of({})

    manager.say_ready()
    feeding = asyncio.create_task(manager.keep_content())
    await asyncio.sleep(0)

    assert feeding.done()
    assert caplog.text == ""


def test_a_manager_that_is_gone_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ServiceManager.of({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).say_ready()

    assert "cannot be told" in caplog.text
