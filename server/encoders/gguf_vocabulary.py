"""Vocabularies of GGUF models, for texts and for pairs.

What a client wrote never becomes a control token. Whether the pieces that stand around it do is the model's business.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import accumulate, pairwise

from server.bindings.llama_vocab import LlamaVocab
from server.encoders.special_tokens import SpecialTokens
from server.errors import InvalidRequest, LoadFailed
from server.types import Token, TokenIds


class GgufTextVocabulary:
    """A `TextVocabulary`."""

    def __init__(self, vocab: LlamaVocab) -> None:
        self._vocab = vocab
        self.size = vocab.size
        self.special = _special(_begin(vocab), [vocab.sep_id] if vocab.is_wordpiece else _end(vocab))

    def encode(self, text: str) -> TokenIds:
        return self._vocab.tokenize(text, parse_special=False)

    def encode_behind(self, prompt: str, text: str) -> tuple[TokenIds, TokenIds]:
        """A token across the border counts as the text's."""
        token_ids, alone = self.encode(prompt + text), self.encode(prompt)
        parting = (n for n, (one, other) in enumerate(zip(alone, token_ids, strict=False)) if one != other)
        num_prompt_tokens = next(parting, len(alone))
        return token_ids[:num_prompt_tokens], token_ids[num_prompt_tokens:]

    def spell(self, text: str, *, add_special_tokens: bool) -> list[Token]:
        """Tell what stands for each token in the text, by the bytes of its tokens.

        Raises:
            InvalidRequest: They do not add up to the text: the model reads it in another spelling.
        """
        token_ids = self.encode(text)
        pieces = [self._vocab.pieces[token_id] for token_id in token_ids]
        data, spelled = text.encode(), b"".join(pieces)
        if spelled == b" " + data:  # some vocabularies put a space before a text
            pieces[0] = pieces[0][1:]
        elif spelled != data:
            raise InvalidRequest(
                "this model reads letters as others (in lower case, without accents), so where its tokens stand cannot "
                "be told; ask one that is not a GGUF file, or has a vocabulary of bytes",
                param="inputs",
                code="unsupported_value",
            )
        before, after = self.special.gaps if add_special_tokens else ([], [])
        tokens = [
            Token(token_id, text[start:stop], start, stop)
            for token_id, (start, stop) in zip(token_ids, _spans(data, pieces), strict=True)
        ]
        return [*map(self._special_token, before), *tokens, *map(self._special_token, after)]

    def _special_token(self, token_id: int) -> Token:
        return Token(token_id, self._vocab.text_of(token_id))


class GgufPairVocabulary:
    """A `PairVocabulary` of a cross-encoder: special tokens around and between, as llama.cpp's server has them."""

    def __init__(self, vocab: LlamaVocab) -> None:
        self._vocab = vocab
        between = [*_end(vocab), *([vocab.sep_id] if vocab.adds_sep else [])]
        self.special = _special(_begin(vocab), between, _end(vocab))

    def encode_query(self, query: str) -> TokenIds:
        return self._vocab.tokenize(query, parse_special=False)

    def encode_document(self, document: str) -> TokenIds:
        return self._vocab.tokenize(document, parse_special=False)


class GgufPromptVocabulary:
    """A `PairVocabulary` of a chat model that is asked about a document: a prompt with {query} before {document}.

    The document's first token may hold the space before it (" Paris"), so that space is tokenised with the document;
    everything before it is the query's side, everything behind it the same for all.
    """

    def __init__(self, vocab: LlamaVocab, prompt: str) -> None:
        query_side, found, behind = prompt.partition("{document}")
        if not found or "{query}" not in query_side or "{query}" in behind:
            raise LoadFailed("the rerank template of the file has no {query} before a {document}")
        self._vocab = vocab
        controls = "|".join(map(re.escape, vocab.control_texts)) or "(?!)"  # matches nothing
        self._controls = re.compile(f"({controls})")
        self._query_side = query_side.rstrip(" ")
        self._gap = query_side[len(self._query_side) :]
        self.special = _special([], [], self._encode_prompt(behind))

    def encode_query(self, query: str) -> TokenIds:
        return self._encode_prompt(self._query_side, query)

    def encode_document(self, document: str) -> TokenIds:
        return self._vocab.tokenize(self._gap + document, parse_special=False)

    def _encode_prompt(self, prompt: str, query: str = "") -> TokenIds:
        token_ids: TokenIds = []
        for is_control, piece in enumerate(self._controls.split(prompt)):
            # Pieces and the control tokens between them take turns.
            text = piece if is_control % 2 else piece.replace("{query}", query)
            token_ids += self._vocab.tokenize(text, parse_special=bool(is_control % 2))
        return token_ids


def _spans(data: bytes, pieces: list[bytes]) -> Iterator[tuple[int, int]]:
    """Where the pieces of a text stand in it, in characters; a character that several share stands in each."""
    num_begun = [0, *accumulate(int(byte & 0xC0 != 0x80) for byte in data)]  # characters, before each byte
    for start, stop in pairwise([0, *accumulate(map(len, pieces))]):
        yield (num_begun[start + 1] - 1 if start < stop else num_begun[stop]), num_begun[stop]


def _begin(vocab: LlamaVocab) -> TokenIds:
    return [vocab.bos_id] if vocab.adds_bos or vocab.is_wordpiece else []


def _end(vocab: LlamaVocab) -> TokenIds:
    return [vocab.eos_id if vocab.eos_id >= 0 else vocab.sep_id] if vocab.adds_eos else []


def _special(*gaps: TokenIds) -> SpecialTokens:
    """llama.cpp knows no segments: everything is of segment 0."""
    return SpecialTokens(gaps, tuple([0] * len(gap) for gap in gaps), (0,) * (len(gaps) - 1))
