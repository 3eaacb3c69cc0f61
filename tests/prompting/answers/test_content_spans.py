"""Where content stands in an answer, as log probabilities need to know: whatever the model's format, and its text."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from server.prompting.answers.known_formats import TOOL_FORMATS
from server.prompting.answers.thoughts import GEMMA, MISTRAL, THINK, ThoughtTags
from server.prompting.answers.tool_format import ToolFormat
from server.types import Delta
from tests.fakes.spoken import reader_of
from tests.prompting.answers.test_answer_reader import TEXTS


@settings(deadline=None)
@given(
    st.sampled_from(list(TOOL_FORMATS.values())),
    st.sampled_from([None, THINK, MISTRAL, GEMMA]),
    TEXTS,
    st.lists(st.integers(1, 9), min_size=1, max_size=80),
    st.booleans(),
)
def test_spans_hold_the_content_that_is_delivered_with_them(
    format_: ToolFormat, thoughts: ThoughtTags | None, scraps: list[str], sizes: list[int], trusts_calls: bool
) -> None:
    """But for the line breaks that stand in place of a call or of reasoning."""
    text = "".join(scraps)
    reader = reader_of(format_, thoughts=thoughts, trusts_calls=trusts_calls)
    last_end = 0

    def check(delta: Delta | None) -> None:
        nonlocal last_end
        spans = reader.take_spans()
        said = "".join(text[start:end] for start, end in spans)
        delivered = delta.text if delta else ""
        assert said.replace("\n", "") == delivered.replace("\n", "")
        for start, end in spans:
            assert last_end <= start < end
            last_end = end

    at = 0
    while at < len(text):
        size = sizes[at % len(sizes)]
        check(reader.push(text[at : at + size]))
        at += size
    check(reader.finish())
