"""Tables as text: csv and its relatives."""

from __future__ import annotations

import csv
import io
import sys
from collections import Counter
from collections.abc import Sequence

from server.rag.documents import ParsedDocument
from server.rag.loaders.document_builder import DocumentBuilder
from server.rag.loaders.source_file import SourceFile

_DELIMITERS = ",;\t|"
_SAMPLE_CHARS = 1 << 16
_SAMPLE_LINES = 100


def load_csv(source: SourceFile) -> ParsedDocument:
    """One table. Formulas are text like any."""
    csv.field_size_limit(sys.maxsize)  # the text as a whole is bounded
    delimiter = _delimiter(source.text[:_SAMPLE_CHARS].splitlines()[:_SAMPLE_LINES])
    builder = DocumentBuilder(source.limits)
    builder.add_table(csv.reader(io.StringIO(source.text, newline=""), delimiter=delimiter))
    return builder.build("text/csv")


def _delimiter(lines: Sequence[str]) -> str:
    """The one that cuts most lines into equally many cells, and into more than one."""

    def evenness(delimiter: str) -> tuple[int, int]:
        widths = Counter(len(row) for row in csv.reader(lines, delimiter=delimiter))
        (width, num_rows), *_ = widths.most_common(1) or [(0, 0)]
        return (num_rows, width) if width > 1 else (0, 0)

    return max(_DELIMITERS, key=evenness)
