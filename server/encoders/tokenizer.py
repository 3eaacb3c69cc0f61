"""Turns `Texts` or `Pairs` into `EncodedItem`s that fit the model.

The limit is a contract: an input that is too long is refused with both counts, or cut because the caller asked for
it and then counted, or spread over several windows. Work and memory are bounded by what the model accepts, not by what
a client sends: a tokenizer takes some 200 bytes for each character. Which tokens a text has, `vocabulary.py` says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from server.encoders.encoder import EncodedItem, Pairs, Texts
from server.encoders.vocabulary import PairVocabulary, TextVocabulary
from server.errors import ContextLengthExceeded, InvalidRequest, LoadFailed, RequestTooLarge
from server.types import Token, TokenIds, Truncate

USUAL_CHARS_PER_TOKEN = 12
"""Text beyond this many characters per accepted token is not even tokenised when it would be cut off anyway. English
has 4 to 5; text where one token stands for more (a long run of spaces) is found out and tokenised further."""

MAX_CHARS_PER_TOKEN = 64
"""Text beyond this many characters per accepted token is never tokenised: it is refused, or cut off."""

MAX_WINDOWS = 256
"""Most windows of one input: each costs as much as an input of its own."""

MAX_FURTHER_WINDOWS = 32_768
"""Most windows of a request, besides one for each input. 32 MB of English take about as many of 256 tokens."""

_COUNT_FROM_PADDING = frozenset(
    {
        *("camembert", "data2vec-text", "ibert", "longformer", "luke", "mpnet", "roberta", "roberta-prelayernorm"),
        *("xlm-roberta", "xlm-roberta-xl", "xmod"),
    }
)
"""Architectures (`model_type`) whose first token has the position behind the padding token's id: of 514 positions,
texts have 512."""


class _Tokens(NamedTuple):
    """A tokenised input: `prompt` goes before each window of `text`; `is_clipped` if not all of it was tokenised."""

    prompt: TokenIds
    text: TokenIds
    is_clipped: bool = False


class TextTokenizer:
    """Tokenises single texts. Settings never change after `__init__`, so threads may share it."""

    def __init__(self, vocabulary: TextVocabulary, *, model_id: str, max_tokens: int, default_prompt: str = "") -> None:
        """`max_tokens` bounds an item, special tokens included; `default_prompt` is for `Texts` that do not say."""
        self._vocabulary = vocabulary
        self._special = vocabulary.special
        self._model_id = model_id
        self._max_tokens = max_tokens
        self._default_prompt = default_prompt

    def encode(self, texts: Texts) -> list[EncodedItem]:
        """Tokenise, keeping order. With `truncate` "mean", a long input becomes several windows in a row.

        Raises:
            InvalidRequest: A token id is not in the vocabulary.
            ContextLengthExceeded: An input is too long and `truncate` is "error", it would take too many windows, or
                the prompt leaves no room.
            RequestTooLarge: The inputs together would take too many windows.
        """
        prompt = self._default_prompt if texts.prompt is None else texts.prompt
        prompt_ids = self._encode_prompt(prompt)
        items: list[EncodedItem] = []
        for index, source in enumerate(texts.inputs):
            if not isinstance(source, str):
                tokens = _Tokens(prompt_ids, self._check_ids(source, index))
            elif texts.truncate == "mean":
                tokens = self._encode_slices(prompt, source)
            elif texts.truncate == "start":
                tokens = self._encode_clipped(prompt, source, from_start=True)
            elif texts.truncate == "end":
                tokens = self._encode_clipped(prompt, source, from_start=False)
            else:
                tokens = self._encode_whole(prompt + source, index)
            items += self._fit(tokens, texts.truncate, index)
            if len(items) - (index + 1) > MAX_FURTHER_WINDOWS:
                raise RequestTooLarge(
                    f"input has {len(texts)} texts, of which the first {index + 1} take more than "
                    f"{MAX_FURTHER_WINDOWS} windows; send less at a time",
                    param="input",
                )
        return items

    def spell(self, texts: Sequence[str], *, add_special_tokens: bool) -> list[list[Token]]:
        """Tell the tokens of each text, of those too that are somewhat longer than the model accepts.

        Raises:
            InvalidRequest: The vocabulary cannot tell where the tokens of a text stand.
            ContextLengthExceeded: A text is much longer.
        """
        max_chars = MAX_CHARS_PER_TOKEN * self._max_tokens
        for index, text in enumerate(texts):
            if len(text) > max_chars:
                raise ContextLengthExceeded(
                    f"inputs[{index}] has {len(text)} characters but at most {max_chars} are tokenised; send a part",
                    param="inputs",
                )
        return [self._vocabulary.spell(text, add_special_tokens=add_special_tokens) for text in texts]

    # ---- tokens of an input

    def _encode_prompt(self, prompt: str) -> TokenIds:
        token_ids = self._vocabulary.encode(prompt) if prompt else []
        if len(token_ids) >= self._max_tokens - len(self._special):
            raise self._no_room(token_ids)
        return token_ids

    def _check_ids(self, token_ids: TokenIds, index: int) -> TokenIds:
        for position, token_id in enumerate(token_ids):
            if not 0 <= token_id < self._vocabulary.size:
                raise InvalidRequest(
                    f"input[{index}][{position}] is {token_id} but the token ids of model {self._model_id!r} go from 0 "
                    f"to {self._vocabulary.size - 1}; send ids of its own tokenizer, or text",
                    param="input",
                )
        return self._special.without(token_ids)

    def _encode_whole(self, text: str, index: int) -> _Tokens:
        if not _is_countable(text, self._max_tokens):
            raise self._too_long(index, f"{len(text)} characters", self._max_tokens)
        return _Tokens([], self._vocabulary.encode(text))

    def _encode_clipped(self, prompt: str, text: str, *, from_start: bool) -> _Tokens:
        """Tokenise no more of the text than it takes to fill the model."""
        for chars_per_token in (USUAL_CHARS_PER_TOKEN, MAX_CHARS_PER_TOKEN):
            max_chars = chars_per_token * self._max_tokens
            clipped = text[-max_chars:] if from_start else text[:max_chars]
            tokens = self._split(prompt, clipped)._replace(is_clipped=len(clipped) < len(text))
            if not tokens.is_clipped or len(tokens.text) > self._max_tokens:
                break
        return tokens

    def _encode_slices(self, prompt: str, text: str) -> _Tokens:
        """Tokenise all of the text, a part at a time, but not much more than windows can hold."""
        slices = _slices(text, MAX_CHARS_PER_TOKEN * self._max_tokens)
        tokens = self._split(prompt, next(slices, ""))
        for part in slices:
            if len(tokens.text) > MAX_WINDOWS * self._max_tokens:
                return tokens._replace(is_clipped=True)
            tokens.text.extend(self._vocabulary.encode(part))
        return tokens

    def _split(self, prompt: str, text: str) -> _Tokens:
        if not prompt:
            return _Tokens([], self._vocabulary.encode(text))
        return _Tokens(*self._vocabulary.encode_behind(prompt, text))

    # ---- items of an input

    def _fit(self, tokens: _Tokens, truncate: Truncate, index: int) -> Iterator[EncodedItem]:
        prompt, text, is_clipped = tokens
        room = self._max_tokens - len(self._special) - len(prompt)
        if len(text) <= room:
            yield self._special.around(prompt + text, is_truncated=is_clipped)
        elif room < 1:  # a prompt may have more tokens before a text than it has alone
            raise self._no_room(prompt)
        elif truncate == "end":
            yield self._special.around(prompt + text[:room], is_truncated=True)
        elif truncate == "start":
            yield self._special.around(prompt + text[-room:], is_truncated=True)
        elif truncate == "mean":
            num_windows = -(-len(text) // room)
            if num_windows > MAX_WINDOWS:
                size = f"{'more than ' * is_clipped}{len(text)} tokens"
                raise self._too_long(index, size, MAX_WINDOWS * room)
            for window in range(num_windows):  # of like length: a short last one would count for more than it says
                start, stop = (len(text) * edge // num_windows for edge in (window, window + 1))
                yield self._special.around(prompt + text[start:stop], is_continuation=window > 0)
        else:
            num_tokens = len(self._special) + len(prompt) + len(text)
            raise self._too_long(index, f"{num_tokens} tokens", self._max_tokens)

    def _no_room(self, prompt: TokenIds) -> ContextLengthExceeded:
        return ContextLengthExceeded(
            f"the prompt has {len(prompt)} tokens, which leaves none for a text: model {self._model_id!r} accepts "
            f"{self._max_tokens}; shorten the prompt",
            param="prompt",
        )

    def _too_long(self, index: int, size: str, max_tokens: int) -> ContextLengthExceeded:
        return ContextLengthExceeded(
            f"input[{index}] has {size} but model {self._model_id!r} accepts {max_tokens} tokens; shorten it or set "
            "truncate",
            param="input",
        )


class PairTokenizer:
    """Tokenises query and document together. Only documents are ever cut. Threads may share it."""

    def __init__(self, vocabulary: PairVocabulary, *, model_id: str, max_tokens: int) -> None:
        """`max_tokens` bounds query, document and special tokens together."""
        self._vocabulary = vocabulary
        self._special = vocabulary.special
        self._model_id = model_id
        self._max_tokens = max_tokens

    def encode(self, pairs: Pairs) -> list[EncodedItem]:
        """Tokenise, keeping order. With `truncate` "end", the end of a long document is cut off.

        Raises:
            ContextLengthExceeded: A pair is too long and `truncate` is "error", or the query leaves no room.
        """
        query = self._encode_query(pairs.query)
        room = self._max_tokens - len(self._special) - len(query)
        max_tokens = pairs.max_tokens_per_doc
        if pairs.truncate != "error":
            max_tokens = min(room, room if max_tokens is None else max_tokens)
        items = []
        for index, document in enumerate(pairs.documents):
            token_ids, is_truncated = self._encode_document(document, max_tokens)
            if len(token_ids) > room or (max_tokens is None and is_truncated):
                num_characters = len(pairs.query) + len(document)
                num_tokens = len(self._special) + len(query) + len(token_ids)
                raise self._too_long(index, f"{num_characters} characters" if is_truncated else f"{num_tokens} tokens")
            items.append(self._special.around(query, token_ids, is_truncated=is_truncated))
        return items

    def _encode_query(self, query: str) -> TokenIds:
        """Tokenise the query; refuse it unless at least one token of a document fits beside it."""
        max_tokens = self._max_tokens - len(self._special) - 1
        token_ids = self._vocabulary.encode_query(query) if _is_countable(query, max_tokens) else None
        if token_ids is None or len(token_ids) > max_tokens:
            size = f"{len(query)} characters" if token_ids is None else f"{len(token_ids)} tokens"
            raise ContextLengthExceeded(
                f"the query has {size} but model {self._model_id!r} accepts {max_tokens} tokens beside a document; "
                "shorten the query",
                param="query",
            )
        return token_ids

    def _encode_document(self, document: str, max_tokens: int | None) -> tuple[TokenIds, bool]:
        """Return at most `max_tokens` tokens of a document, and whether it has more."""
        for chars_per_token in (USUAL_CHARS_PER_TOKEN, MAX_CHARS_PER_TOKEN):
            max_chars = chars_per_token * self._max_tokens
            token_ids = self._vocabulary.encode_document(document[:max_chars])
            if max_tokens is not None and len(token_ids) > max_tokens:
                return token_ids[:max_tokens], True
            if len(document) <= max_chars:
                return token_ids, False
        return token_ids, True

    def _too_long(self, index: int, size: str) -> ContextLengthExceeded:
        return ContextLengthExceeded(
            f"documents[{index}] and the query have {size} together but model {self._model_id!r} accepts "
            f"{self._max_tokens} tokens; shorten the document or set truncate",
            param=f"documents[{index}]",
        )


def _slices(text: str, max_chars: int) -> Iterator[str]:
    """Cut a text before white space, where there is some, so that no word is torn."""
    start = 0
    while len(text) - start > max_chars:
        stop = start + max_chars
        space = max(text.rfind(" ", start + 1, stop), text.rfind("\n", start + 1, stop))
        stop = space if space > start else stop
        yield text[start:stop]
        start = stop
    yield text[start:]


def _is_countable(text: str, max_tokens: int) -> bool:
    """Whether `text` may fit, so that counting its tokens is worth the time."""
    return len(text) <= MAX_CHARS_PER_TOKEN * max_tokens


def num_positions(hf_config: Mapping[str, Any]) -> int | None:
    """How many tokens a network can tell the places of, by its config.json; None where that does not say."""
    positions: int | None = hf_config.get("max_position_embeddings")
    return None if positions is None else positions - first_position(hf_config)


def first_position(hf_config: Mapping[str, Any]) -> int:
    """Which position a text's first token has."""
    if hf_config.get("model_type") not in _COUNT_FROM_PADDING:
        return 0
    pad_id: int | None = hf_config.get("pad_token_id")
    return 2 if pad_id is None else pad_id + 1


def choose_max_tokens(configured: int | None, *, own: int | None, possible: int | None) -> int:
    """Decide how many tokens one input may have: as configured, or what the model was made for.

    Args:
        configured: `context` in models.yaml.
        own: The limit that the model's files state, where they do.
        possible: How many positions the model has; more cannot be computed.
    """
    max_tokens = configured or min((limit for limit in (own, possible) if limit is not None), default=None)
    if max_tokens is None:
        raise LoadFailed("the model's files do not say how many tokens it accepts; set context in models.yaml")
    if possible is not None and max_tokens > possible:
        raise LoadFailed(f"context is {max_tokens} but the model has {possible} positions; lower context")
    return max_tokens
