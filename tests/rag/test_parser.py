"""The parser around children that do everything wrong: see `tests.fakes.odd_parser`."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from server.rag import parser as parser_module
from server.rag.parser import Parser
from server.rag.parsing import ParseFailed, ParserLimits
from tests.fakes.scripted import ends_within, until_true

LIMITS = ParserLimits(max_memory_bytes=256 << 20, max_text_bytes=1 << 20)
NOWHERE = Path("/nowhere")

MakeParser = Callable[..., Parser]


@pytest.fixture
async def make_parser(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[MakeParser]:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    parsers: list[Parser] = []

    def make(limits: ParserLimits = LIMITS, *, num_workers: int = 1) -> Parser:
        parsers.append(Parser(limits, num_workers=num_workers, module="tests.fakes.odd_parser"))
        return parsers[-1]

    yield make
    for parser in parsers:
        await parser.close()
    assert children() == []


def children() -> list[int]:
    """Parsers' children; of this process, which may have others: a server that live tests share."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.ZombieProcess):  # somebody else's, who has yet to look after it
            if "tests.fakes.odd_parser" in child.cmdline():
                found.append(child.pid)
    return found


def content_of(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def pid_of(parser: Parser) -> int:
    """Id of the child that reads the next file."""
    return int((await parser.parse(NOWHERE, "tell")).text)


async def failure_of(parser: Parser, filename: str, path: Path = NOWHERE) -> tuple[str, str]:
    with pytest.raises(ParseFailed) as caught:
        await parser.parse(path, filename)
    return caught.value.code, caught.value.message


async def block_child(parser: Parser, tmp_path: Path) -> tuple[asyncio.Task[object], int]:
    """Start to read a file whose end never comes; return once the child does, with the pipe's end to close."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    task: asyncio.Task[object] = asyncio.create_task(parser.parse(path, "block"))
    return task, await asyncio.to_thread(os.open, path, os.O_WRONLY)


async def test_a_child_reads_one_file_after_another(make_parser: MakeParser) -> None:
    parser = make_parser()

    assert await pid_of(parser) == await pid_of(parser)


async def test_as_many_children_as_workers_read_at_the_same_time(make_parser: MakeParser) -> None:
    parser = make_parser(num_workers=2)

    pids = await asyncio.gather(*(pid_of(parser) for _ in range(6)))

    assert len(set(pids)) == 2


@pytest.mark.parametrize(
    ("filename", "code", "words"),
    [
        ("die 9", "server_error", "was killed"),
        ("die 11", "invalid_file", "SIGSEGV"),
        ("die 6", "invalid_file", "SIGABRT"),
        ("leave", "invalid_file", "exit code 3"),
        ("eat", "invalid_file", "more than 256 MB of memory"),
        ("raise secret", "invalid_file", "damaged"),
        ("read", "server_error", "FileNotFoundError"),
        ("spawn", "invalid_file", "PermissionError"),
        ("flood", "server_error", "no sensible answer"),
        ("lie", "server_error", "no sensible answer"),
    ],
)
async def test_a_file_that_breaks_its_reader_breaks_nothing_else(
    make_parser: MakeParser, filename: str, code: str, words: str
) -> None:
    parser = make_parser()

    (failed, message), pid = await asyncio.gather(failure_of(parser, filename), pid_of(parser))

    assert failed == code and words in message and "secret" not in message
    assert pid > 0


async def test_a_file_that_takes_too_long_is_given_up(make_parser: MakeParser) -> None:
    parser = make_parser(ParserLimits(timeout_s=1.5))

    code, message = await failure_of(parser, "spin")

    assert (code, "more than 1.5 s" in message) == ("invalid_file", True)
    assert children() == []


async def test_cancelling_kills_the_child_at_work(make_parser: MakeParser, tmp_path: Path) -> None:
    parser = make_parser()
    task, pipe = await block_child(parser, tmp_path)

    task.cancel()
    await asyncio.wait([task])

    assert task.cancelled() and children() == []
    assert await pid_of(parser) > 0
    os.close(pipe)


async def test_closing_leaves_no_child_behind(make_parser: MakeParser, tmp_path: Path) -> None:
    parser = make_parser(num_workers=2)
    await pid_of(parser)
    task, pipe = await block_child(parser, tmp_path)

    await parser.close()

    assert children() == []
    assert isinstance(task.exception(), ParseFailed)
    assert (await failure_of(parser, "tell"))[0] == "server_error"
    os.close(pipe)


async def test_a_child_that_holds_on_to_memory_is_replaced(make_parser: MakeParser) -> None:
    parser = make_parser()
    heavy = int((await parser.parse(NOWHERE, "keep")).text)

    assert await pid_of(parser) != heavy


async def test_a_child_that_died_while_idle_is_replaced(make_parser: MakeParser) -> None:
    parser = make_parser()
    pid = await pid_of(parser)

    os.kill(pid, signal.SIGKILL)
    assert ends_within(pid, 5)  # the event loop does not know yet

    assert await pid_of(parser) != pid


async def test_a_child_with_nothing_to_do_ends(make_parser: MakeParser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parser_module, "IDLE_S", 0.0)
    parser = make_parser()
    pid = await pid_of(parser)

    await until_true(lambda: not children())

    assert await pid_of(parser) != pid


async def test_what_a_library_prints_is_no_answer(make_parser: MakeParser) -> None:
    parser = make_parser()

    assert (await parser.parse(NOWHERE, "print")).text.isdigit()


async def test_a_signal_meant_for_the_server_does_not_end_a_child(make_parser: MakeParser) -> None:
    parser = make_parser()

    assert (await parser.parse(NOWHERE, "polite")).text.isdigit()


async def test_a_child_can_write_no_file(make_parser: MakeParser, tmp_path: Path) -> None:
    code, _ = await failure_of(make_parser(), "write", tmp_path / "canary")

    assert (code, content_of(tmp_path)) == ("invalid_file", [])


async def test_a_child_cannot_connect_to_anything(make_parser: MakeParser) -> None:
    with socket.create_server(("127.0.0.1", 0)) as canary:
        canary.setblocking(False)
        _, message = await failure_of(make_parser(), f"connect {canary.getsockname()[1]}")

        assert "PermissionError" in message
        with pytest.raises(BlockingIOError):
            canary.accept()


@pytest.mark.skipif(
    subprocess.run(["unshare", "--user", "--net", "true"], capture_output=True, check=False).returncode != 0,
    reason="this kernel lets nobody make a network namespace",
)
async def test_a_child_has_no_network_even_past_python(make_parser: MakeParser) -> None:
    with socket.create_server(("127.0.0.1", 0)) as canary:
        answer = await make_parser().parse(NOWHERE, f"connect-in-c {canary.getsockname()[1]}")

    assert int(answer.text) != 0


async def test_no_secret_reaches_a_child(make_parser: MakeParser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEARTH_API_KEY", "canary")
    pid = await pid_of(make_parser())

    assert "canary" not in psutil.Process(pid).environ().values()


PARENT = """
import asyncio, sys
from pathlib import Path
from server.rag.parser import Parser

async def main():
    parser = Parser(module="tests.fakes.odd_parser")
    print((await parser.parse(Path("."), "tell")).text, flush=True)
    await parser.parse(Path(sys.argv[1]), "block")

asyncio.run(main())
"""


def test_a_child_dies_with_its_parent(tmp_path: Path) -> None:
    """The parent is killed while the child is at work: nobody is left to kill that."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    environ = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen([sys.executable, "-c", PARENT, str(pipe)], stdout=subprocess.PIPE, env=environ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        handle = os.open(pipe, os.O_WRONLY)  # returns once the child reads
        assert not ends_within(pid, 0)

        parent.kill()

        assert ends_within(pid, 5)
    os.close(handle)
