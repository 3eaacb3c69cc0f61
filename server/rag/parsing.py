"""What the parser and its child processes agree on: limits, the reason of a refusal, the messages between them.

A message is a frame: a header that tells its size, then msgpack. Blocks travel packed: hundreds of thousands of small
objects would hold the interpreter lock, and so the server's event loop, while they are decoded.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import get_args

import msgspec

from server.errors import HearthError
from server.rag.documents import Block, BlockKind, FailureCode, ParsedDocument

MAX_BLOCKS = 200_000
"""Of one document; beyond, structure is given up and the rest is one block."""

MAX_TITLE_LENGTH = 500

TASK_HEADER = struct.Struct("<I")
"""Size in bytes of a `ParseTask`."""

ANSWER_HEADER = struct.Struct("<?Q")
"""Whether the child ends after this answer; size in bytes of a `Parsed` or `Refused`."""

_BLOCK = struct.Struct("<IIIBB")  # start, end, page (0 for None), level, kind
_KINDS: tuple[BlockKind, ...] = get_args(BlockKind)


@dataclass(frozen=True, kw_only=True)
class ParserLimits:
    """What reading one file may cost; whatever goes beyond is refused.

    Attributes:
        timeout_s: From the moment that a child has the file, its start included.
        max_memory_bytes: Of the child, interpreter and libraries included.
        max_text_bytes: Of the text that comes out, as UTF-8.
        max_pages: Of a pdf, slides of a pptx.
        max_members: Files inside a docx, xlsx or pptx, which are zip archives.
        max_unpacked_bytes: Of all members together; they are kept in memory.
    """

    timeout_s: float = 60.0
    max_memory_bytes: int = 512 << 20
    max_text_bytes: int = 64 << 20
    max_pages: int = 10_000
    max_members: int = 10_000
    max_unpacked_bytes: int = 256 << 20


class ParseFailed(HearthError):
    """A file cannot be made into text. The message is for whoever uploaded it; it names no path and quotes no text.

    Attributes:
        code: `unsupported_file`: of a kind that is not read; `invalid_file`: broken, locked, empty or too costly;
            `server_error`: not the file's fault, as far as can be told, and worth another try.
    """

    code: FailureCode

    def __init__(self, code: FailureCode, message: str) -> None:
        super().__init__(message, code=code)


class ParseTask(msgspec.Struct, frozen=True):
    """Read this file. `filename` is what the client called it."""

    path: str
    filename: str


class Parsed(msgspec.Struct, frozen=True, tag=True):
    """A `ParsedDocument`; see `pack`."""

    text: str
    blocks: bytes
    media_type: str
    title: str


class Refused(msgspec.Struct, frozen=True, tag=True):
    """A `ParseFailed`. `place` tells where an unforeseen error came from, for the log only."""

    code: FailureCode
    message: str
    place: str = ""


def max_answer_bytes(limits: ParserLimits) -> int:
    return limits.max_text_bytes + MAX_BLOCKS * _BLOCK.size + (64 << 10)


def pack(document: ParsedDocument) -> Parsed:
    blocks = b"".join(
        _BLOCK.pack(block.start, block.end, block.page or 0, block.level, _KINDS.index(block.kind))
        for block in document.blocks
    )
    return Parsed(document.text, blocks, document.media_type, document.title)


def unpack(parsed: Parsed) -> ParsedDocument:
    """Undo `pack`.

    Raises:
        ValueError: It does not hold what a document holds: the child is not what it was.
    """
    blocks: list[Block] = []
    position = 0
    try:
        for start, end, page, level, kind in _BLOCK.iter_unpack(parsed.blocks):
            if not position <= start < end <= len(parsed.text):
                raise ValueError(f"block {len(blocks)} is out of place")
            position = end
            blocks.append(Block(_KINDS[kind], start, end, page or None, level))
    except (struct.error, IndexError) as exc:
        raise ValueError(f"blocks are damaged: {exc}") from exc
    return ParsedDocument(parsed.text, tuple(blocks), parsed.media_type, parsed.title)
