"""A small vocabulary: an end token, a control token, every byte, some longer pieces, and padding; written greedily."""

from __future__ import annotations

import numpy as np

END, CONTROL = 0, 1
_LONGER = (
    *('{"', '":', '": ', '", "', '"}', "true", "false", "null", "ab", "abc", "name", "na", "me", "10", "é", "日本"),
    *(" ", "  ", "\n  ", "},{", "[]", "{}", "1.", "e+", '\\"', "\\u00"),
)

PIECES = [b"", b"", *(bytes([byte]) for byte in range(256)), *(text.encode() for text in dict.fromkeys(_LONGER))]
PIECES += [b""] * (-len(PIECES) % 32)  # as in real ones, whose sizes are round
IS_END = np.arange(len(PIECES)) == END
_IDS = {piece: token_id for token_id, piece in enumerate(PIECES) if piece}
_LONGEST = max(map(len, PIECES))


def tokenize(text: str) -> list[int]:
    """The longest piece first."""
    rest, token_ids = text.encode(), []
    while rest:
        piece = next(rest[:size] for size in range(_LONGEST, 0, -1) if rest[:size] in _IDS)
        token_ids.append(_IDS[piece])
        rest = rest[len(piece) :]
    return token_ids


def text_of(token_ids: list[int]) -> str:
    return b"".join(PIECES[token_id] for token_id in token_ids).decode(errors="replace")
