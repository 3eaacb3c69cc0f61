from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import WeightsError
from server.models.sources import FileSource, HfSource, PypiSource, parse_source

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,8}", fullmatch=True)
parts = st.text(st.characters(exclude_characters="/\\", exclude_categories=["C"]), min_size=1, max_size=8)
paths = st.lists(parts.filter(lambda part: part not in (".", "..")), min_size=1, max_size=4).map("/".join)
repos = st.tuples(names, names).map("/".join)
sources = st.one_of(
    st.builds(FileSource, paths.map(Path)),
    st.builds(HfSource, repos, st.none() | names, st.none() | paths),
    st.builds(PypiSource, names, st.from_regex(r"[0-9]+(\.[0-9]+){0,2}(rc1|\+cpu)?", fullmatch=True), paths),
)


@given(sources)
def test_source_survives_being_written_and_parsed(source: FileSource | HfSource | PypiSource) -> None:
    assert parse_source(str(source)) == source


def test_parts_of_each_form_are_found() -> None:
    assert parse_source("file:/a b/c.gguf") == FileSource(Path("/a b/c.gguf"))
    assert parse_source("hf:Qwen/Q-GGUF@refs/pr/1#q/Q8_0.gguf") == HfSource("Qwen/Q-GGUF", "refs/pr/1", "q/Q8_0.gguf")
    assert parse_source("hf:o/r") == HfSource("o/r", None, None)
    assert parse_source("pypi:pkg==1.0#pkg/model") == PypiSource("pkg", "1.0", "pkg/model")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "file:",
        "model.gguf",
        "http://host/x",
        "hf:owner",
        "hf:../..",
        "hf:o/r#",
        "hf:o/r#../x",
        "hf:o/r#a//b",
        "pypi:pkg#path",
        "pypi:pkg==1.0",
        "pypi:pkg==1.0#/etc/passwd",
        "pypi:pkg==1.0#a/../../b",
        "pypi:pkg==1.0#a/..",
        "pypi:pkg==1.0#a\\b",
        "pypi:pkg==1.0#a\nb",
        "pypi:--pkg==1.0#a",
    ],
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(WeightsError, match="is not a source; expected one of file:PATH"):
        parse_source(text)
