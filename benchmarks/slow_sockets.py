"""A thousand slow or idle connections: does anybody else notice, and what do they cost?

    python -m benchmarks.slow_sockets                  # some six minutes on two cores
    python -m benchmarks.slow_sockets --rounds 1 --only idle

Starts `hearth serve` with the default chat model. Against it, one kind after the other, a process opens a thousand
connections, and opens each again that the server has closed:

- idle: connects and says nothing;
- keep-alive: asks once, and then says nothing;
- slow head: sends a byte of a header every ten seconds;
- slow body: the same within a body;
- slow reader: asks for some hundred kilobytes, and takes none of them.

Meanwhile a client asks as always, `GET /v1/models` and short chats; before and after it asks without company. The
median must be less than 1.2 times what it is without. Memory is the server's resident memory, per connection.

Writes benchmarks/results/slow_sockets.json, and ends with 1 if something that must hold did not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import resource
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import yaml

from benchmarks.machine import spread
from benchmarks.results import SLOW_SOCKETS, Section, environment
from benchmarks.server_process import ServerProcess
from benchmarks.servers import ROOT, default_models
from benchmarks.tables import NOT_YET, PAGE, markdown, refill, significant, spread_text

NUM_SOCKETS = 1000
TRICKLE_S = 10.0
SETTLE_S = 3.0
"""From when all connections are open until the first request counts."""

NUM_LISTS, NUM_CHATS = 400, 12
"""Requests of each kind in a round."""

MAX_RATIO = 1.2
MAX_IDLE_KB = 30.0

MODEL = "smollm2-135m-instruct"
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "Count to ten."}], "max_tokens": 16, "temperature": 0}

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


# ---- the thousand, in a process of their own


async def _idle(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def _keep_alive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await reader.read()


async def _slow_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _trickle(reader, writer, b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nx-slow: ")


async def _slow_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\ncontent-type: application/json\r\n"
    await _trickle(reader, writer, head + b"content-length: 1000\r\n\r\n{")


async def _trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, beginning: bytes) -> None:
    writer.write(beginning)
    ending = asyncio.create_task(reader.read())
    while not ending.done():
        await asyncio.wait((ending,), timeout=TRICKLE_S)
        writer.write(b"x")


async def _slow_reader(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport can
    writer.write(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 8)
    while not writer.transport.is_closing():
        await asyncio.sleep(TRICKLE_S)
        writer.write(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n")  # finds out when nobody listens


KINDS: dict[str, Talk] = {
    "idle": _idle,
    "keep-alive": _keep_alive,
    "slow head": _slow_head,
    "slow body": _slow_body,
    "slow reader": _slow_reader,
}


def _attack(kind: str, url: str, is_open: Event) -> None:
    """Keep the connections open until this process is ended."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, NUM_SOCKETS + 1000)), hard))
    asyncio.run(_attack_all(kind, url, is_open))


async def _attack_all(kind: str, url: str, is_open: Event) -> None:
    address = urlsplit(url)
    assert address.hostname
    assert address.port
    num_open = 0

    async def hold() -> None:
        nonlocal num_open
        is_first = True
        while True:
            plug = socket.socket()
            plug.setblocking(False)
            if kind == "slow reader":
                plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            try:
                await asyncio.get_running_loop().sock_connect(plug, (address.hostname, address.port))
                reader, writer = await asyncio.open_connection(sock=plug)
                if is_first:
                    is_first, num_open = False, num_open + 1
                    if num_open == NUM_SOCKETS:
                        is_open.set()
                await KINDS[kind](reader, writer)
                writer.close()
            except OSError:
                plug.close()
            await asyncio.sleep(0.01)

    await asyncio.gather(*(hold() for _ in range(NUM_SOCKETS)))


@contextmanager
def attacked(kind: str, url: str) -> Iterator[None]:
    spawn = multiprocessing.get_context("spawn")
    is_open = spawn.Event()
    attacker = spawn.Process(target=_attack, args=(kind, url, is_open), daemon=True)
    attacker.start()
    try:
        if not is_open.wait(60):
            raise TimeoutError(f"the {kind} connections are not open after 60 s")
        time.sleep(SETTLE_S)
        yield
    finally:
        attacker.kill()
        attacker.join()


# ---- the one that shall not notice


def ask_as_always(url: str) -> dict[str, list[float]]:
    """Milliseconds of each request."""
    with httpx.Client(base_url=url, timeout=60) as client:
        lists = [_timed(client, "GET", "/v1/models") for _ in range(NUM_LISTS)]
        chats = [_timed(client, "POST", "/v1/chat/completions") for _ in range(NUM_CHATS)]
    return {"GET /v1/models": lists, "chat of 16 tokens": chats}


def _timed(client: httpx.Client, method: str, path: str) -> float:
    started = time.perf_counter()
    client.request(method, path, json=CHAT if method == "POST" else None).raise_for_status()
    return 1000 * (time.perf_counter() - started)


# ---- what is measured


def measure(server: ServerProcess, kind: str, *, rounds: int) -> Section:
    process = psutil.Process(server.process.pid)
    ratios: dict[str, list[float]] = {}
    medians: dict[str, dict[str, list[float]]] = {}
    memory_kb: list[float] = []
    num_open: list[int] = []
    for _ in range(rounds):
        before = ask_as_always(server.url)
        _wait_until_alone(process)
        rss = process.memory_info().rss
        with attacked(kind, server.url):
            memory_kb.append((process.memory_info().rss - rss) / 1000 / NUM_SOCKETS)
            num_open.append(_num_connections(process))
            beside = ask_as_always(server.url)
            num_open.append(_num_connections(process))
        _wait_until_alone(process)
        after = ask_as_always(server.url)
        for name, times in beside.items():
            alone = statistics.median(before[name] + after[name])
            medians.setdefault(name, {"alone_ms": [], "beside_ms": []})
            medians[name]["alone_ms"].append(alone)
            medians[name]["beside_ms"].append(statistics.median(times))
            ratios.setdefault(name, []).append(statistics.median(times) / alone)
    return {
        "requests": {
            name: {"ratio": spread(ratios[name]), **{key: spread(values) for key, values in medians[name].items()}}
            for name in ratios
        },
        "memory_kb_per_connection": spread(memory_kb, digits=1),
        "open_connections": num_open,
    }


def _num_connections(process: psutil.Process) -> int:
    return sum(each.status == psutil.CONN_ESTABLISHED for each in process.net_connections("tcp"))


def _wait_until_alone(process: psutil.Process) -> None:
    """The connections of a killed attacker are closed by the kernel, and let go of by the server soon after."""
    give_up_at = time.monotonic() + 90
    while _num_connections(process) > 5:
        if time.monotonic() > give_up_at:
            raise TimeoutError("connections stay open after their client was killed")
        time.sleep(0.2)


def broken(section: Section) -> list[str]:
    """What must hold and does not."""
    found = []
    for kind, measured in section["kinds"].items():
        for name, figures in measured["requests"].items():
            if (ratio := figures["ratio"]["median"]) >= MAX_RATIO:
                found.append(f"{kind}: {name} takes {ratio} x as long")
        if kind == "idle" and (used := measured["memory_kb_per_connection"]["median"]) >= MAX_IDLE_KB:
            found.append(f"{kind}: {used} KB for each connection")
    return found


def table(section: Section) -> str:
    head = ("1,000 connections", "Request", "Alone, ms", "Beside them, ms", "Ratio", "Memory per connection, KB")
    rows = []
    for kind, measured in section.get("kinds", {}).items():
        memory = significant(measured["memory_kb_per_connection"]["median"])
        for name, figures in measured["requests"].items():
            cells = (spread_text(figures[key]) for key in ("alone_ms", "beside_ms", "ratio"))
            rows.append((kind, name, *cells, memory))
    return markdown(head, rows) if rows else NOT_YET


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="append", choices=KINDS, help="kind of connection; may be repeated")
    parser.add_argument("--out", type=Path, default=SLOW_SOCKETS)
    arguments = parser.parse_args()
    section: Section = {**environment(), "rounds": arguments.rounds, "connections": NUM_SOCKETS, "kinds": {}}
    with (
        tempfile.TemporaryDirectory() as folder,
        ServerProcess(_write_config(Path(folder)), Path(folder) / "log") as server,
    ):
        server.wait_until_settled()
        ask_as_always(server.url)  # the first ones pay for what the others find
        for kind in arguments.only or KINDS:
            section["kinds"][kind] = measure(server, kind, rounds=arguments.rounds)
            print(kind, json.dumps(section["kinds"][kind]))
    section["broken"] = broken(section)
    arguments.out.write_text(json.dumps(section, indent=1) + "\n", encoding="utf-8")
    if arguments.out == SLOW_SOCKETS:
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(refill(page, {"slow-sockets": lambda: table(section)}), encoding="utf-8")
    print(*section["broken"], f"written to {arguments.out}", sep="\n")
    sys.exit(bool(section["broken"]))


def _write_config(folder: Path) -> Path:
    server = {"weights_dir": str(ROOT / "weights"), "data_dir": str(folder / "data"), "tune": False}
    config = folder / "models.yaml"
    chat = [model for model in default_models() if model["id"] == MODEL]
    config.write_text(yaml.safe_dump({"server": server, "models": chat}), encoding="utf-8")
    return config


if __name__ == "__main__":
    main()
