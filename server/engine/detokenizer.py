"""Token bytes to text as they come: whole code points only, stop strings found across token borders."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class Detokenizer:
    """Incremental text of one generation. Each call costs the new bytes plus the longest stop string, never the whole.

    Attributes:
        stop_text: The stop string that has been found; the text before it is complete and nothing more may be pushed.
    """

    def __init__(self, pieces: Sequence[bytes], stop: tuple[str, ...] = ()) -> None:
        self._pieces = pieces
        self._stop = stop
        self._beginnings: dict[str, tuple[str, ...]] = {}  # of stop strings, by their last character, longest first
        for text in sorted({each[:length] for each in stop for length in range(1, len(each))}, key=len, reverse=True):
            self._beginnings[text[-1]] = (*self._beginnings.get(text[-1], ()), text)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""  # text that may be the beginning of a stop string
        self.stop_text: str | None = None

    @property
    def stopped(self) -> bool:
        return self.stop_text is not None

    @property
    def num_held(self) -> int:
        """Characters that are known and not yet certain."""
        return len(self._held)

    def push(self, token_id: int) -> str:
        """Add a token; return the text that is now certain (possibly none)."""
        return self._release(self._decoder.decode(self._pieces[token_id]))

    def flush(self) -> str:
        """Return what was held back, at the end of the generation."""
        if self.stopped:
            return ""
        text = self._release(self._decoder.decode(b"", final=True))
        if not self.stopped:
            text, self._held = text + self._held, ""
        return text

    def _release(self, new_text: str) -> str:
        assert not self.stopped
        text = self._held + new_text
        found = [(at, stop) for stop in self._stop if (at := text.find(stop)) >= 0]
        if found:
            first, self.stop_text = min(found, key=lambda each: each[0])
            self._held = ""
            return text[:first]
        keep = self._num_held(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def _num_held(self, text: str) -> int:
        """Length of the longest end of `text` that begins a stop string."""
        possible = self._beginnings.get(text[-1:], ())
        return next((len(each) for each in possible if text.endswith(each)), 0)
