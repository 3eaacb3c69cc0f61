"""PDF: text by page. The format knows no paragraphs and no headings; gaps between lines and sizes of type tell them."""

from __future__ import annotations

import ctypes
import itertools
import math
import re
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c

from server.rag.documents import ParsedDocument
from server.rag.loaders.document_builder import DocumentBuilder
from server.rag.loaders.source_file import SourceFile
from server.rag.parsing import ParseFailed

_LINE_ENDS = frozenset((10, 13))
_LIGATURES = str.maketrans({0xFB00: "ff", 0xFB01: "fi", 0xFB02: "fl", 0xFB03: "ffi", 0xFB04: "ffl", 0xFB05: "st"})
_HEADING_RATIO = 1.15
"""Type that is larger than most of the document's by this is a heading's."""

_MAX_HEADING_LENGTH = 200
_MIN_HEADING_LETTERS = 2
_LEADERS = re.compile(r"\.\s?\.\s?\.")  # from a title to its page: a table of contents
_MAX_LEVEL = 6

_NUM_SAMPLES = 5
"""Characters of a line whose size is looked at: some may be bullets, marks of footnotes, or words of code."""

_SAME_SIZE = 0.2
_MAX_LEADING = 2.0
"""Lines are rarely further apart, by the size of their type, within one paragraph; it is mostly 1.2."""

_EXTRA_LEADING = 0.5
"""What it takes, by the size of the type, to see that a paragraph begins."""


@dataclass(frozen=True, slots=True)
class _Line:
    """Words that were drawn in one line; where a hyphen was taken out, in two or more.

    Attributes:
        first, last: Height of its (first, last) base line above the lower edge of the page, in points.
        size: Of its type, in points.
    """

    text: str
    page: int
    first: float
    last: float
    size: float


def load_pdf(source: SourceFile) -> ParsedDocument:
    """Read the text of every page; none of pictures, which would have to be recognised."""
    with _open(source) as pdf:
        num_pages = len(pdf)
        if num_pages > source.limits.max_pages:
            raise ParseFailed("invalid_file", f"the file has {num_pages} pages, more than {source.limits.max_pages}")
        pages = [list(_lines(pdf, index)) for index in range(num_pages)]
        title = str(pdf.get_metadata_value("Title"))
    levels = _heading_levels([line for page in pages for line in page])
    builder = DocumentBuilder(source.limits)
    for page in pages:
        for paragraph in _paragraphs(page, levels):
            _add(builder, paragraph, levels)
    if not builder.num_blocks:
        raise ParseFailed(
            "invalid_file", f"the file has no text on its {num_pages} pages; run a scan through text recognition first"
        )
    return builder.build("application/pdf", title=title)


def _open(source: SourceFile) -> pdfium.PdfDocument:
    try:
        return pdfium.PdfDocument(source.path)
    except pdfium.PdfiumError as exc:
        if exc.err_code in (pdfium_c.FPDF_ERR_PASSWORD, pdfium_c.FPDF_ERR_SECURITY):
            raise ParseFailed("invalid_file", "the pdf is encrypted; upload a copy without a password") from exc
        raise ParseFailed("invalid_file", "the pdf is damaged or has no pages; upload it again") from exc


def _lines(pdf: pdfium.PdfDocument, index: int) -> Iterator[_Line]:
    """Lines of a page in the order in which it draws them; none if it is damaged."""
    try:
        page = pdf[index]
    except pdfium.PdfiumError:
        return
    text_page = page.get_textpage()
    raw = text_page.raw
    codes: list[int] = []
    visible: list[int] = []  # places of the line's characters that are
    num_chars = text_page.count_chars()
    for place in range(num_chars + 1):
        code = pdfium_c.FPDFText_GetUnicode(raw, place) if place < num_chars else 10
        if code not in _LINE_ENDS:
            codes.append(code)
            if code > 32:
                visible.append(place)
        elif visible:
            samples = [visible[len(visible) * share // _NUM_SAMPLES] for share in range(_NUM_SAMPLES)]
            size = statistics.median_high(_size(raw, sample) for sample in samples)
            yield _Line(_text_of(codes), index + 1, _height(raw, visible[0]), _height(raw, visible[-1]), size)
        if code in _LINE_ENDS:
            codes, visible = [], []
    text_page.close()
    page.close()


def _height(text_page: Any, place: int) -> float:
    x, y = ctypes.c_double(), ctypes.c_double()
    pdfium_c.FPDFText_GetCharOrigin(text_page, place, ctypes.byref(x), ctypes.byref(y))
    return y.value


def _size(text_page: Any, place: int) -> float:
    """To the half point. Many programs set everything in size 1, and let a matrix enlarge it."""
    matrix = pdfium_c.FS_MATRIX()
    pdfium_c.FPDFText_GetMatrix(text_page, place, ctypes.byref(matrix))
    size = float(pdfium_c.FPDFText_GetFontSize(text_page, place)) * math.hypot(matrix.c, matrix.d)
    return round(2 * size) / 2


def _text_of(codes: Sequence[int]) -> str:
    """Some programs write pairs of surrogates where one character is meant. Hyphens at the end of a line, which the
    library marks with a code that no text has, go when the text is cleaned."""
    text = "".join(map(chr, codes)).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return " ".join(text.translate(_LIGATURES).split())


def _heading_levels(lines: Sequence[_Line]) -> dict[float, int]:
    """Level of each size of type that is larger than most of the text."""
    chars: Counter[float] = Counter()
    for line in lines:
        chars[line.size] += len(line.text)
    body = max(chars, key=chars.__getitem__, default=0.0)
    larger = sorted((size for size in chars if size > _HEADING_RATIO * body), reverse=True)
    return {size: min(level, _MAX_LEVEL) for level, size in enumerate(larger, 1)}


def _paragraphs(page: Sequence[_Line], levels: Mapping[float, int]) -> Iterator[list[_Line]]:
    """Lines of much the same size that follow each other closely."""
    distances = [above.last - below.first for above, below in itertools.pairwise(page)]
    usual = statistics.median([distance for distance in distances if distance > 0] or [0.0])
    paragraph: list[_Line] = []
    for line in page:
        if paragraph and not (
            levels.get(paragraph[-1].size) == levels.get(line.size) and _belong_together(paragraph[-1], line, usual)
        ):
            yield paragraph
            paragraph = []
        paragraph.append(line)
    if paragraph:
        yield paragraph


def _belong_together(above: _Line, below: _Line, usual_distance: float) -> bool:
    if abs(above.size - below.size) > _SAME_SIZE * above.size:
        return False
    # On a page of nothing but single lines, the usual distance is that between paragraphs.
    most = min(usual_distance, _MAX_LEADING * above.size) + _EXTRA_LEADING * above.size
    return -_EXTRA_LEADING * above.size <= above.last - below.first <= most  # further up: the next column


def _add(builder: DocumentBuilder, paragraph: Sequence[_Line], levels: Mapping[float, int]) -> None:
    page = paragraph[0].page
    text = "\n".join(line.text for line in paragraph)
    level = levels.get(paragraph[0].size, 0)
    if level and _is_title(text):
        builder.add_heading(text, level, page=page)
    else:
        builder.add("paragraph", text, page=page)


def _is_title(text: str) -> bool:
    num_letters = sum(map(str.isalpha, text))
    return len(text) <= _MAX_HEADING_LENGTH and num_letters >= _MIN_HEADING_LETTERS and not _LEADERS.search(text)
