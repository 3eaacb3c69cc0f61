"""The special tokens that a model wants around its texts, as its tokenizer would put them.

The `tokenizers` library adds them while it tokenises; we add them to token ids, which may not come from a text.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Literal

from tokenizers import Tokenizer

from server.encoders.encoder import EncodedItem
from server.types import SpecialTokenIds, TokenIds


@dataclass(frozen=True)
class SpecialTokens:
    """What stands around one text, or around and between two.

    Attributes:
        gaps: Special tokens before the first text, after the first, and so on; always one more than texts.
        gap_types: The segment of each of them.
        text_types: The segment of each text.
    """

    gaps: tuple[TokenIds, ...]
    gap_types: tuple[list[int], ...]
    text_types: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: Tokenizer, *, num_texts: Literal[1, 2]) -> SpecialTokens:
        """Find them out from a probe."""
        encoding = tokenizer.encode("a", "a" if num_texts == 2 else None)
        gaps: list[TokenIds] = [[] for _ in range(num_texts + 1)]
        gap_types: list[list[int]] = [[] for _ in range(num_texts + 1)]
        text_types = [0] * num_texts
        num_seen = 0
        for token_id, type_id, text in zip(encoding.ids, encoding.type_ids, encoding.sequence_ids, strict=True):
            if text is None:
                gaps[num_seen].append(token_id)
                gap_types[num_seen].append(type_id)
            else:
                num_seen = text + 1
                text_types[text] = type_id
        return cls(tuple(gaps), tuple(gap_types), tuple(text_types))

    def __len__(self) -> int:
        return sum(len(gap) for gap in self.gaps)

    def around(self, *texts: TokenIds, is_truncated: bool = False, is_continuation: bool = False) -> EncodedItem:
        """Make an item of tokenised texts."""
        token_ids, type_ids = array("i", self.gaps[0]), array("b", self.gap_types[0])
        for text, text_type, gap, gap_types in zip(
            texts, self.text_types, self.gaps[1:], self.gap_types[1:], strict=True
        ):
            token_ids.extend(text)
            token_ids.extend(gap)
            type_ids.extend(array("b", [text_type]) * len(text))
            type_ids.extend(gap_types)
        return EncodedItem(token_ids, type_ids, is_truncated=is_truncated, is_continuation=is_continuation)

    @property
    def ids_around_a_text(self) -> SpecialTokenIds:
        before, after = self.gaps
        return before, after

    def without(self, token_ids: TokenIds) -> TokenIds:
        """Take them off a single text that has them already, as clients with the model's own tokenizer may send it."""
        before, after = self.gaps
        end = len(token_ids) - len(after)
        if len(before) <= end and token_ids[: len(before)] == before and token_ids[end:] == after:
            return token_ids[len(before) : end]
        return token_ids
