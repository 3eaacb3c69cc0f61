"""Turns texts, or pairs of query and document, into `EncodedItem`s that fit the model.

The limit is a contract: an input that is too long is refused with both counts, or cut because the caller asked for
it, and then counted. Work and memory are bounded by what the model accepts, not by what a client sends: a tokenizer
takes some 200 bytes for each character. Uses the `tokenizers` library directly, because transformers' wrapper changes
settings of the tokenizer that threads share at every call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from tokenizers import Encoding, Tokenizer

from server.encoders.encoder import EncodedItem
from server.errors import ContextLengthExceeded, LoadFailed

USUAL_CHARS_PER_TOKEN = 12
"""Text beyond this many characters per accepted token is not even tokenised when it would be cut off anyway. English
has 4 to 5; text where one token stands for more (a long run of spaces) is found out and tokenised further."""

MAX_CHARS_PER_TOKEN = 64
"""Text beyond this many characters per accepted token is never tokenised: it is refused, or cut off."""

Pair = tuple[str, str]


class TextTokenizer:
    """Tokenises single texts. Settings never change after `__init__`, so threads may share it."""

    def __init__(self, tokenizer: Tokenizer, *, model_id: str, max_tokens: int) -> None:
        """Copy `tokenizer`, ignoring its own limits. `max_tokens` bounds a text, special tokens included."""
        self._whole = _copy(tokenizer)
        self._cut = _copy(tokenizer, max_tokens, strategy="longest_first")
        self._model_id = model_id
        self._max_tokens = max_tokens

    def encode(self, texts: Sequence[str], *, truncate: bool) -> list[EncodedItem]:
        """Tokenise, keeping order. With `truncate`, the end of a long text is cut off.

        Raises:
            ContextLengthExceeded: A text is too long and `truncate` is false.
        """
        if truncate:
            return [_encode_cut(partial(_encode, self._cut), text, self._max_tokens) for text in texts]
        return [self._encode_whole(text, index) for index, text in enumerate(texts)]

    def _encode_whole(self, text: str, index: int) -> EncodedItem:
        encoding = _encode(self._whole, text) if _is_countable(text, self._max_tokens) else None
        if encoding is None or len(encoding) > self._max_tokens:
            raise ContextLengthExceeded(
                f"input[{index}] has {_size(text, encoding)} but model {self._model_id!r} accepts {self._max_tokens} "
                "tokens; shorten it or set truncate",
                param="input",
            )
        return _item(encoding)


class PairTokenizer:
    """Tokenises query and document together. Only documents are ever cut. Threads may share it."""

    def __init__(self, tokenizer: Tokenizer, *, model_id: str, max_tokens: int) -> None:
        """As `TextTokenizer`; `max_tokens` bounds query, document and special tokens together."""
        self._whole = _copy(tokenizer)
        self._cut = _copy(tokenizer, max_tokens, strategy="only_second")
        self._model_id = model_id
        self._max_tokens = max_tokens

    def encode(self, pairs: Sequence[Pair], *, truncate: bool) -> list[EncodedItem]:
        """Tokenise, keeping order. With `truncate`, the end of a long document is cut off.

        Raises:
            ContextLengthExceeded: A pair is too long and `truncate` is false, or a query leaves no room.
        """
        for query in {query for query, _ in pairs}:
            self._check_query(query)
        if truncate:
            return [
                _encode_cut(partial(_encode, self._cut, query), document, self._max_tokens) for query, document in pairs
            ]
        return [self._encode_whole(query, document, index) for index, (query, document) in enumerate(pairs)]

    def _encode_whole(self, query: str, document: str, index: int) -> EncodedItem:
        encoding = _encode(self._whole, query, document) if _is_countable(document, self._max_tokens) else None
        if encoding is None or len(encoding) > self._max_tokens:
            raise ContextLengthExceeded(
                f"documents[{index}] and the query have {_size(query + document, encoding)} together but model "
                f"{self._model_id!r} accepts {self._max_tokens} tokens; shorten the document or set truncate",
                param="documents",
            )
        return _item(encoding)

    def _check_query(self, query: str) -> None:
        """Raise unless at least one token of a document fits beside the query."""
        max_tokens = self._max_tokens - self._whole.num_special_tokens_to_add(True) - 1
        encoding = self._whole.encode(query, add_special_tokens=False) if _is_countable(query, max_tokens) else None
        if encoding is None or len(encoding) > max_tokens:
            raise ContextLengthExceeded(
                f"the query has {_size(query, encoding)} but model {self._model_id!r} accepts {max_tokens} tokens "
                "beside a document; shorten the query",
                param="query",
            )


def _copy(tokenizer: Tokenizer, max_tokens: int | None = None, *, strategy: str = "") -> Tokenizer:
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.no_padding()
    copy.no_truncation()
    if max_tokens is not None:
        copy.enable_truncation(max_tokens, strategy=strategy)
    return copy


def _encode(tokenizer: Tokenizer, *texts: str) -> Encoding:
    """Encode a text or a pair. One by one: a batch would hold the encodings, far larger than token ids, of all."""
    [encoding] = tokenizer.encode_batch_fast([texts if len(texts) > 1 else texts[0]])
    return encoding


def _encode_cut(encode: Callable[[str], Encoding], text: str, max_tokens: int) -> EncodedItem:
    """Tokenise no more of `text` than it takes to fill `max_tokens`, which `encode` cuts at."""
    for max_chars in (USUAL_CHARS_PER_TOKEN * max_tokens, MAX_CHARS_PER_TOKEN * max_tokens):
        encoding = encode(text[:max_chars])
        if encoding.overflowing or len(text) <= max_chars:
            return _item(encoding)
    return replace(_item(encoding), is_truncated=True)


def _is_countable(text: str, max_tokens: int) -> bool:
    """Whether `text` may fit, so that counting its tokens is worth the time."""
    return len(text) <= MAX_CHARS_PER_TOKEN * max_tokens


def _size(text: str, encoding: Encoding | None) -> str:
    return f"{len(text)} characters" if encoding is None else f"{len(encoding)} tokens"


def _item(encoding: Encoding) -> EncodedItem:
    return EncodedItem(encoding.ids, encoding.type_ids, is_truncated=bool(encoding.overflowing))


def choose_max_tokens(configured: int | None, *, own: int | None, possible: int | None) -> int:
    """Decide how many tokens one input may have: as configured, or what the model was made for.

    Args:
        configured: `context` in models.yaml.
        own: The limit that the model's files state, where they do.
        possible: How many positions the model has; more cannot be computed.
    """
    max_tokens = configured or own or possible
    if max_tokens is None:
        raise LoadFailed("the model's files do not say how many tokens it accepts; set context in models.yaml")
    if possible is not None and max_tokens > possible:
        raise LoadFailed(f"context is {max_tokens} but the model has {possible} positions; lower context")
    return max_tokens
