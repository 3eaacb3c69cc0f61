"""A parser's child that misbehaves as the name of a file says: `python -m tests.fakes.odd_parser LIMITS`."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

from server.rag.documents import Block, ParsedDocument
from server.rag.parser_child import run_child
from server.rag.parsing import ParserLimits, max_answer_bytes

KEPT = []


def load(path: Path, filename: str, limits: ParserLimits) -> ParsedDocument:
    """Do what the name says, and return this process's id."""
    what, _, argument = filename.partition(" ")
    text = str(os.getpid())
    match what:
        case "block":
            path.open().read()  # of a pipe that nobody closes
        case "spin":
            while True:
                pass
        case "die":
            os.kill(os.getpid(), int(argument))
        case "leave":
            os._exit(3)
        case "eat":
            KEPT.append(bytearray(limits.max_memory_bytes))
        case "keep":
            KEPT.append(bytearray(limits.max_memory_bytes * 2 // 3))
        case "raise":
            raise KeyError(argument)
        case "read":
            path.read_bytes()
        case "connect":
            socket.create_connection(("127.0.0.1", int(argument)))
        case "connect-in-c":
            text = str(connect_in_c(int(argument)))
        case "spawn":
            subprocess.run(["true"], check=False)
        case "write":
            path.write_text("written")
        case "print":
            print("noise")
            os.write(sys.stdout.fileno(), b"noise")
        case "flood":
            text = "x" * max_answer_bytes(limits)
        case "lie":
            return ParsedDocument(text, (Block("code", 5, 1 << 30),), "text/plain")
        case "polite":
            os.kill(os.getpid(), signal.SIGTERM)
    return ParsedDocument(text, (Block("paragraph", 0, len(text)),), "text/plain")


def connect_in_c(port: int) -> int:
    """Past Python, to which audit hooks are known: the kernel's answer, 0 for a connection."""
    libc = ctypes.CDLL(None, use_errno=True)
    handle = libc.socket(socket.AF_INET, socket.SOCK_STREAM, 0)
    address = struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", port, bytes([127, 0, 0, 1]))
    return ctypes.get_errno() if libc.connect(handle, address, len(address)) else 0


if __name__ == "__main__":
    run_child(load)
