"""The words of a text, for comparing texts: capitals, ligatures and the grouping of digits make no difference."""

from __future__ import annotations

import re
import unicodedata

_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
"""Japanese and Chinese: no space between words, so that each sign counts as one."""

_WORD = re.compile(rf"[{_UNSPACED}]|\d+(?:[.,]\d+)+|[^\W{_UNSPACED}]+")


def words_of(text: str) -> list[str]:
    """Return the words in order. "1,000" and "1.000" are 1000, and "3.5" is 35: the same number gives the same word."""
    found: list[str] = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    return [word.replace(",", "").replace(".", "") for word in found]


def has_digit(word: str) -> bool:
    return not word.isalpha() and any(map(str.isdigit, word))


def is_telling(word: str) -> bool:
    """Whether texts that share the word may be about the same; short ones are in all of them."""
    return len(word) > 2 or has_digit(word) or not word.isascii()
