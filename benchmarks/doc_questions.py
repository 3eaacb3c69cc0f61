"""Questions with known answers about Python's own documentation, which were not made of its pages.

- What `help()` says first of a function asks for the place where the library reference describes it.
- An entry of the general index, which a person put there, asks for the page that it leads to.

Pages are those of Debian's python3.11-doc, docstrings those of the Python that runs this.
"""

from __future__ import annotations

import importlib
import inspect
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from selectolax.lexbor import LexborHTMLParser, LexborNode

from server.rag.documents import ParsedDocument
from server.rag.loaders.load import load
from server.rag.parsing import ParserLimits

_LIBRARY = """
    argparse asyncio-stream asyncio-task base64 calendar collections configparser copy dataclasses decimal email.message
    fnmatch functools gzip heapq http.client io itertools json locale math multiprocessing os.path pickle queue re
    secrets shlex signal socket statistics struct tarfile textwrap time types unittest urllib.request warnings zipfile
"""
_REFERENCE = "compound_stmts datamodel executionmodel expressions import lexical_analysis simple_stmts"
_HOWTO = "logging regex sorting unicode"
_FAQ = "design library programming"

NUM_QUESTIONS = 300
"""Of each kind."""

_MIN_WORDS = 5
_MAX_WORDS = 30
_SIGNATURE = re.compile(r"^\w*\(.*?\)\s*(?:->|--)?\s*")


@dataclass(frozen=True)
class Question:
    """`place` is where in the text of its page the answer begins; None: anywhere in it."""

    text: str
    page: str
    place: int | None = None


def read_pages(folder: Path) -> dict[str, ParsedDocument]:
    """About a page in seven, with 1.8 million characters, by path."""
    parts = (("library", _LIBRARY), ("reference", _REFERENCE), ("howto", _HOWTO), ("faq", _FAQ))
    names = sorted(f"{part}/{name}.html" for part, listed in parts for name in listed.split())
    return {name: load(folder / name, name, ParserLimits()) for name in names}


def docstring_questions(pages: Mapping[str, ParsedDocument]) -> list[Question]:
    return _drawn([each for name, page in pages.items() if name.startswith("library/") for each in _asked(name, page)])


def index_questions(folder: Path, pages: Mapping[str, ParsedDocument]) -> list[Question]:
    index = LexborHTMLParser((folder / "genindex-all.html").read_text(encoding="utf-8"))
    entries = [each for each in index.css("table.genindextable td > ul > li") if _is_top(each)]
    found = {
        Question(text, page): None
        for entry in entries
        for text, page in _entries(entry)
        if page in pages and len(text.split()) > 1
    }
    return _drawn(list(found))


def _drawn(questions: Sequence[Question]) -> list[Question]:
    return random.Random(1).sample(questions, min(NUM_QUESTIONS, len(questions)))


def _asked(name: str, page: ParsedDocument) -> Iterator[Question]:
    """What the module of a page says of its functions and classes, as far as the page describes them."""
    module_name = name.removeprefix("library/").removesuffix(".html").partition("-")[0]
    module = importlib.import_module(module_name)
    for attribute in getattr(module, "__all__", dir(module)):
        thing = getattr(module, attribute, None)
        described = re.search(
            rf"^(?:class |async |exception )?{re.escape(f'{module_name}.{attribute}')}\b", page.text, re.MULTILINE
        )
        if attribute.startswith("_") or not callable(thing) or described is None:
            continue
        text = _first_sentence(inspect.getdoc(thing) or "")
        if len(text.split()) >= _MIN_WORDS:
            yield Question(text, name, described.start())


def _first_sentence(docstring: str) -> str:
    paragraphs = (" ".join(each.split()) for each in docstring.split("\n\n"))
    first = next((text for each in paragraphs if (text := _SIGNATURE.sub("", each))), "")
    return " ".join(re.split(r"(?<=[.!?])\s", first)[0].split()[:_MAX_WORDS])


def _is_top(entry: LexborNode) -> bool:
    return entry.parent is not None and entry.parent.parent is not None and entry.parent.parent.tag == "td"


def _entries(entry: LexborNode) -> Iterator[tuple[str, str]]:
    """What is written in an entry and below it, without module names in brackets, and the page that it leads to."""
    first = entry.child
    term = " ".join((first.text() or "").split()) if first else ""
    for link in entry.css("a"):
        page, _, anchor = (link.attributes.get("href") or "").partition("#")
        below = " ".join(link.text().split())
        if anchor.startswith("index-") and not below.startswith("["):
            text = below if below == term else f"{term} {below}"
            yield " ".join(re.sub(r"\([^)]*\)", " ", text).split()), page
