"""HTML pages: what a reader of the page would see of its text. Nothing is run, nothing is fetched."""

from __future__ import annotations

import contextlib
import re
from collections import Counter

from selectolax.lexbor import LexborHTMLParser, LexborNode

from server.rag.documents import BlockKind, ParsedDocument
from server.rag.loaders.decoding import clean
from server.rag.loaders.document_builder import DocumentBuilder
from server.rag.loaders.source_file import SourceFile

_LINE_BREAK = "\0"  # in no page: parsers replace it

_INVISIBLE = frozenset(
    (
        *("script", "style", "template", "noscript", "head", "title", "iframe", "object", "embed", "svg", "canvas"),
        *("audio", "video", "map", "select", "option", "button", "input", "textarea", "datalist", "nav"),
    )
)
_BLOCKS = frozenset(
    (
        *("address", "article", "aside", "blockquote", "body", "caption", "center", "dd", "details", "dialog", "div"),
        *("dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6"),
        *("header", "hgroup", "hr", "html", "legend", "li", "main", "menu", "ol", "p", "pre", "section", "summary"),
        *("table", "tbody", "td", "tfoot", "th", "thead", "tr", "ul"),
    )
)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_LISTS = frozenset(("ul", "ol", "menu"))

_HIDING = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse)|(?:font-size|opacity)\s*:\s*0(?![.\d])", re.IGNORECASE
)
_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w-]+)", re.IGNORECASE)
_LAYOUT = "table, h1, h2, h3, h4, h5, h6, pre"
"""A table that holds any of these arranges a page rather than figures."""


def load_html(source: SourceFile) -> ParsedDocument:
    builder = DocumentBuilder(source.limits)
    title = add_html(builder, _text_of(source))
    return builder.build("text/html", title=title)


def add_html(builder: DocumentBuilder, html: str) -> str:
    """Append the page's main part if it names one, else all of its body; return its title."""
    page = LexborHTMLParser(html)
    mains = page.css("main, [role=main]")
    num_blocks = builder.num_blocks
    for root in [*(mains if len(mains) == 1 else []), page.body]:
        if root is not None and builder.num_blocks == num_blocks:
            _Walk(builder).walk(root)
    title = page.css_first("title")
    return title.text() if title else ""


def _text_of(source: SourceFile) -> str:
    """What is not UTF-8 is in the charset that the page names, if it does."""
    declared = _CHARSET.search(source.content[:4096])
    if declared is not None:
        with contextlib.suppress(UnicodeDecodeError):
            source.content.decode()
            return source.text
        with contextlib.suppress(LookupError, UnicodeDecodeError):
            return clean(source.content.decode(declared[1].decode()))
    return source.text


class _Walk:
    """Goes through a page once, and makes a block whenever one ends. Recursion would end at hostile depths."""

    def __init__(self, builder: DocumentBuilder) -> None:
        self._builder = builder
        self._inline: list[str] = []
        self._open: Counter[str] = Counter()
        self._marker = ""  # of a list item that has not been written yet
        self._rows: list[list[str]] | None = None  # of the table that we are in

    def walk(self, root: LexborNode) -> None:
        stack = [(root, False)]
        while stack:
            node, is_left = stack.pop()
            tag = node.tag or ""
            if is_left:
                self._leave(tag)
            elif tag == "-text":
                self._inline.append(node.text_content or "")
            elif tag == "br":
                self._inline.append(_LINE_BREAK)
            elif tag not in _INVISIBLE and not _is_hidden(node):
                self._enter(tag, node)
                stack.append((node, True))
                stack.extend((child, False) for child in reversed(list(node.iter(include_text=True))))
        self._end_block()

    def _enter(self, tag: str, node: LexborNode) -> None:
        if tag in _BLOCKS:
            self._end_block()
            self._open[tag] += 1
        if tag == "li":
            self._marker = "- "
        elif tag == "table" and not _is_layout(node):
            self._rows = []
        elif tag == "tr" and self._rows is not None:
            self._rows.append([])

    def _leave(self, tag: str) -> None:
        if self._rows is not None and tag in ("td", "th"):
            self._end_cell()
        if tag in _BLOCKS:
            self._end_block(tag)
            self._open[tag] -= 1
        if tag == "table" and self._rows is not None:
            self._builder.add_table(self._rows)
            self._rows = None

    def _end_cell(self) -> None:
        assert self._rows is not None
        if not self._rows:  # a cell without a row; parsers make one, but this is not theirs to promise
            self._rows.append([])
        self._rows[-1].append("".join(self._inline).replace(_LINE_BREAK, " "))
        self._inline.clear()

    def _end_block(self, tag: str = "") -> None:
        """Make a block of the text since the last one."""
        if self._rows is not None and (self._open["td"] or self._open["th"]):
            self._inline.append(" ")  # the cell goes on
            return
        text = "".join(self._inline)
        self._inline.clear()
        if self._open["pre"]:
            self._builder.add("code", text.replace(_LINE_BREAK, "\n"))
            return
        text = "\n".join(" ".join(line.split()) for line in text.split(_LINE_BREAK)).strip("\n")
        if not text:
            return
        if tag in _HEADINGS:
            self._builder.add_heading(text, _HEADINGS[tag])
        else:
            self._builder.add(*self._as_item(text))

    def _as_item(self, text: str) -> tuple[BlockKind, str]:
        """The text as an item, or a further paragraph of one, of the list that we are in."""
        depth = sum(self._open[tag] for tag in _LISTS)
        if not depth:
            return "paragraph", text
        marker, self._marker = self._marker or "  ", ""
        indent = "  " * (min(depth, 10) - 1)
        return "list", indent + marker + text.replace("\n", f"\n{indent}  ")


def _is_hidden(node: LexborNode) -> bool:
    attributes = node.attributes
    if not attributes:
        return False
    return (
        "hidden" in attributes
        or attributes.get("aria-hidden") == "true"
        or attributes.get("role") == "navigation"
        or _is_anchor(node, attributes.get("href") or "")
        or _HIDING.search(attributes.get("style") or "") is not None
    )


def _is_anchor(node: LexborNode, link: str) -> bool:
    """Whether it is the sign at a heading that only links to it."""
    return node.tag == "a" and link.startswith("#") and not any(map(str.isalnum, node.text()))


def _is_layout(table: LexborNode) -> bool:
    if table.attributes.get("role") in ("presentation", "none"):
        return True
    # Not asked of the table itself: it would be among what is found.
    return any(child.css_first(_LAYOUT) is not None for child in table.iter())
