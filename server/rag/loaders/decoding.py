"""From bytes to clean text: which charset, which line ends, and nothing in it that nobody can see."""

from __future__ import annotations

import codecs
import re

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_SAMPLE_BYTES = 1 << 16
_MAX_CONTROL_SHARE = 0.01
_MAX_DAMAGED_SHARE = 0.05
_ASCII = bytes(range(128))
_WESTERN = "cp1252"
_CLOSE = 0.1
"""Of how much of the text looks like one language."""

_LINE_END = re.compile(r"\r\n?|[\v\f\x85\u2028\u2029]")
_CONTROL = re.compile(r"[\x00-\x07\x0e-\x1a\x1c-\x1f]")
# Control characters, halves of surrogate pairs, noncharacters; soft hyphens and byte order marks, which cut words for
# search; tags (U+E0000..), in which instructions to language models are hidden.
_INVISIBLE = re.compile("[\x00-\x08\x0e-\x1f\x7f\xad\ufeff\ufffe\uffff\ud800-\udfff\U000e0000-\U000e007f]")


def decode(content: bytes) -> str | None:
    """Tell text from its bytes; None if they are none. Damaged characters become U+FFFD."""
    text = _decode(content)
    if text is None or len(_CONTROL.findall(text[:_SAMPLE_BYTES])) > _MAX_CONTROL_SHARE * min(len(text), _SAMPLE_BYTES):
        return None
    return clean(text)


def clean(text: str) -> str:
    """Make every line end `\\n` and take out what is invisible."""
    return _INVISIBLE.sub("", _LINE_END.sub("\n", text))


def _decode(content: bytes) -> str | None:
    for mark, charset in _BOMS:
        if content.startswith(mark):
            return content[len(mark) :].decode(charset, "replace")
    if b"\0" in content[:_SAMPLE_BYTES]:
        return _decode_utf16(content)
    try:
        return content.decode()
    except UnicodeDecodeError:
        return _decode_damaged(content) or _decode_legacy(content)


def _decode_utf16(content: bytes) -> str | None:
    """UTF-16 without a mark: in text with some Latin in it, zeros are in every other place and only there."""
    sample = content[:_SAMPLE_BYTES]
    first, second = sample[::2].count(0), sample[1::2].count(0)
    if min(first, second) > 0 or max(first, second) < len(sample) // 8:
        return None
    return content.decode("utf-16-be" if first else "utf-16-le", "replace")


def _decode_damaged(content: bytes) -> str | None:
    """UTF-8 with a few broken places: better than to take all of it for something else."""
    text = content.decode("utf-8", "replace")
    num_beyond_ascii = len(content.translate(None, _ASCII))
    return text if text.count("\ufffd") <= _MAX_DAMAGED_SHARE * num_beyond_ascii else None


def _decode_legacy(content: bytes) -> str:
    sample = content[:_SAMPLE_BYTES]
    if len(content) > len(sample):  # not through the middle of a character
        sample = sample[: sample.rfind(b"\n") + 1] or sample
    return content.decode(_guess_charset(sample), "replace")


def _guess_charset(sample: bytes) -> str:
    """The one that is likeliest; the commonest of those that are about as likely, and where none is."""
    from charset_normalizer import from_bytes

    guesses = from_bytes(sample)
    best = guesses.best()
    western = next((guess for guess in guesses if guess.encoding == _WESTERN), None)
    if best is None:
        return _WESTERN
    if western is not None and western.chaos <= best.chaos and western.coherence >= best.coherence - _CLOSE:
        return _WESTERN
    return best.encoding
