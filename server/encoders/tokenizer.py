"""Turns texts, or pairs of query and document, into `EncodedItem`s that fit the model.

The limit is a contract: an input that is too long is refused with both counts, or cut because the caller asked for
it, and then counted. Uses the `tokenizers` library directly, because transformers' wrapper changes settings of the
tokenizer that threads share at every call.
"""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Encoding, Tokenizer

from server.encoders.encoder import EncodedItem
from server.errors import ContextLengthExceeded, LoadFailed

MAX_CHARS_PER_TOKEN = 12
"""Text beyond this many characters per accepted token is not even tokenised when it would be cut off anyway. English
has 4 to 5; text where one token stands for more (a long run of spaces) is found out and tokenised whole."""

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
            max_chars = MAX_CHARS_PER_TOKEN * self._max_tokens
            return _encode_cut(self._cut, texts, [text[:max_chars] for text in texts])
        encodings = self._whole.encode_batch_fast(texts)
        for index, encoding in enumerate(encodings):
            if len(encoding) > self._max_tokens:
                raise ContextLengthExceeded(
                    f"input[{index}] has {len(encoding)} tokens but model {self._model_id!r} accepts "
                    f"{self._max_tokens}; shorten it or set truncate",
                    param="input",
                )
        return [_item(encoding) for encoding in encodings]


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
            max_chars = MAX_CHARS_PER_TOKEN * self._max_tokens
            return _encode_cut(self._cut, pairs, [(query, document[:max_chars]) for query, document in pairs])
        encodings = self._whole.encode_batch_fast(pairs)
        for index, encoding in enumerate(encodings):
            if len(encoding) > self._max_tokens:
                raise ContextLengthExceeded(
                    f"documents[{index}] and the query have {len(encoding)} tokens together but model "
                    f"{self._model_id!r} accepts {self._max_tokens}; shorten the document or set truncate",
                    param="documents",
                )
        return [_item(encoding) for encoding in encodings]

    def _check_query(self, query: str) -> None:
        """Raise unless at least one token of a document fits beside the query."""
        num_tokens = len(self._whole.encode(query, add_special_tokens=False))
        max_tokens = self._max_tokens - self._whole.num_special_tokens_to_add(True) - 1
        if num_tokens > max_tokens:
            raise ContextLengthExceeded(
                f"the query has {num_tokens} tokens but model {self._model_id!r} accepts {max_tokens} beside a "
                "document; shorten the query",
                param="query",
            )


def _copy(tokenizer: Tokenizer, max_tokens: int | None = None, *, strategy: str = "") -> Tokenizer:
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.no_padding()
    copy.no_truncation()
    if max_tokens is not None:
        copy.enable_truncation(max_tokens, strategy=strategy)
    return copy


def _encode_cut(
    tokenizer: Tokenizer, inputs: Sequence[str] | Sequence[Pair], clipped: Sequence[str] | Sequence[Pair]
) -> list[EncodedItem]:
    """Tokenise `clipped`, and again in full where clipping, rather than the tokenizer, would have lost something."""
    items = []
    for each, short, encoding in zip(inputs, clipped, tokenizer.encode_batch_fast(clipped), strict=True):
        if short != each and not encoding.overflowing:
            items.append(_item(tokenizer.encode_batch_fast([each])[0]))
        else:
            items.append(_item(encoding))
    return items


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
