from __future__ import annotations

from tests.fakes.parsed_documents import Read, outline, texts

PAGE = """---
author: somebody
---
Title
=====

Some *words*
in two lines.

## Second ##

- one
- two

  with a paragraph

| a | b |
|---|---|
| 1 | 2 |

```python
# no heading

x = 1
```

> quoted

<!-- a comment -->

    indented
"""


def test_blocks_are_those_of_commonmark(read: Read) -> None:
    document = read("a.md", PAGE)

    assert document.text == PAGE
    assert outline(document) == [
        ("code", "---\nauthor: somebody\n---"),
        ("heading", "Title"),
        ("paragraph", "Some *words*\nin two lines."),
        ("heading", "Second"),
        ("list", "- one\n- two\n\n  with a paragraph"),
        ("table", "| a | b |\n|---|---|\n| 1 | 2 |"),
        ("code", "```python\n# no heading\n\nx = 1\n```"),
        ("paragraph", "> quoted"),
        ("code", "    indented"),
    ]


def test_the_highest_heading_is_the_title(read: Read) -> None:
    document = read("a.md", "### Low\n\n# High\n\n# Other")

    assert document.title == "High"
    assert [block.level for block in document.blocks] == [3, 1, 1]


def test_a_fence_that_is_never_closed_ends_with_the_text(read: Read) -> None:
    assert outline(read("a.md", "```\ncode\n\nmore")) == [("code", "```\ncode\n\nmore")]


def test_dashes_at_the_start_need_not_be_front_matter(read: Read) -> None:
    assert texts(read("a.md", "---\nwords"), "paragraph") == ["words"]


def test_an_empty_heading_is_no_block(read: Read) -> None:
    assert outline(read("a.md", "#\n\nwords")) == [("paragraph", "words")]
