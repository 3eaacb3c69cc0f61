"""Log probabilities of tokens as chat and as completions write them."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Any

from server.types import TokenChance, TokenLogprob


def chat_logprobs(tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
    """Of the content, which is all that has any."""
    return {"content": text_logprobs(tokens), "refusal": None}


def text_logprobs(tokens: Sequence[TokenLogprob]) -> list[dict[str, Any]]:
    """Of a text. Bytes tell what a token is that is part of a character only."""
    return [{**_chance(each.chosen), "top_logprobs": list(map(_chance, each.top))} for each in tokens]


def _chance(chance: TokenChance) -> dict[str, Any]:
    return {
        "token": chance.piece.decode("utf-8", "replace"),
        "logprob": chance.logprob,
        "bytes": list(chance.piece),
    }


class CompletionLogprobs:
    """Writes the tokens of one completion, all at once or as they come."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._num_chars = 0

    def body(self, tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
        """The next tokens. Those that were picked are among the likeliest of their place, as OpenAI has them."""
        return {
            "tokens": [_name(each.chosen) for each in tokens],
            "token_logprobs": [each.chosen.logprob for each in tokens],
            "top_logprobs": [{_name(chance): chance.logprob for chance in (*each.top, each.chosen)} for each in tokens],
            "text_offset": [self._offset(each) for each in tokens],
        }

    def _offset(self, token: TokenLogprob) -> int:
        """Where the token begins in the text, in code points."""
        offset = self._num_chars
        self._num_chars += len(self._decoder.decode(token.chosen.piece))
        return offset


def _name(chance: TokenChance) -> str:
    """OpenAI's: text, or its bytes where they are part of a character, so that no two tokens have one name."""
    try:
        return chance.piece.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in chance.piece)
