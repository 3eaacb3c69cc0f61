"""What the tokenizers of texts and of pairs need from a model's vocabulary, and how the `tokenizers` library gives it.

Implementations tokenise without special tokens and without limits, and never change, so threads may share them.
"""

from __future__ import annotations

from typing import Protocol

from tokenizers import Tokenizer

from server.encoders.special_tokens import SpecialTokens
from server.types import Token, TokenIds


class TextVocabulary(Protocol):
    """Tokenises single texts."""

    @property
    def size(self) -> int:
        """Token ids are below it."""

    @property
    def special(self) -> SpecialTokens:
        """What stands around a text."""

    def encode(self, text: str) -> TokenIds: ...

    def encode_behind(self, prompt: str, text: str) -> tuple[TokenIds, TokenIds]:
        """Tokenise both as one text, as models expect it, and return the tokens of each."""

    def spell(self, text: str, *, add_special_tokens: bool) -> list[Token]:
        """Tell what stands for each token in the text.

        Raises:
            InvalidRequest: The vocabulary cannot tell.
        """


class PairVocabulary(Protocol):
    """Tokenises the two sides of a pair."""

    @property
    def special(self) -> SpecialTokens:
        """What stands around query and document, and between them."""

    def encode_query(self, query: str) -> TokenIds: ...

    def encode_document(self, document: str) -> TokenIds: ...


class FastTextVocabulary:
    """A `TextVocabulary` of the `tokenizers` library, used directly: transformers' wrapper changes settings of the
    tokenizer that threads share at every call."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Copy `tokenizer`, ignoring its own limits."""
        self._tokenizer = _unlimited(tokenizer)
        self.special = SpecialTokens.of(self._tokenizer, num_texts=1)
        self.size: int = tokenizer.get_vocab_size()

    def encode(self, text: str) -> TokenIds:
        return _encode(self._tokenizer, text)

    def encode_behind(self, prompt: str, text: str) -> tuple[TokenIds, TokenIds]:
        """A token across the border counts as the prompt's."""
        encoding = self._tokenizer.encode(prompt + text, add_special_tokens=False)
        num_prompt_tokens = sum(start < len(prompt) for start, _ in encoding.offsets)
        return encoding.ids[:num_prompt_tokens], encoding.ids[num_prompt_tokens:]

    def spell(self, text: str, *, add_special_tokens: bool) -> list[Token]:
        encoding = self._tokenizer.encode(text, add_special_tokens=add_special_tokens)
        return [
            Token(token_id, name) if is_special else Token(token_id, text[start:stop], start, stop)
            for token_id, name, (start, stop), is_special in zip(
                encoding.ids, encoding.tokens, encoding.offsets, encoding.special_tokens_mask, strict=True
            )
        ]


class FastPairVocabulary:
    """A `PairVocabulary` of the `tokenizers` library."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Copy `tokenizer`, ignoring its own limits."""
        self._tokenizer = _unlimited(tokenizer)
        self.special = SpecialTokens.of(self._tokenizer, num_texts=2)

    def encode_query(self, query: str) -> TokenIds:
        return _encode(self._tokenizer, query)

    def encode_document(self, document: str) -> TokenIds:
        return _encode(self._tokenizer, document)


def _unlimited(tokenizer: Tokenizer) -> Tokenizer:
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.no_padding()
    copy.no_truncation()
    return copy


def _encode(tokenizer: Tokenizer, text: str) -> TokenIds:
    """One by one: a batch would hold the encodings, far larger than token ids, of all."""
    [encoding] = tokenizer.encode_batch_fast([text], add_special_tokens=False)
    token_ids: TokenIds = encoding.ids
    return token_ids
