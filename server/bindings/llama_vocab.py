"""The vocabulary of a loaded model: text to token ids, token ids to bytes."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterable

import llama_cpp
import numpy as np
import numpy.typing as npt

from server.types import TokenIds

_CONTROL_ATTRIBUTES = llama_cpp.LLAMA_TOKEN_ATTR_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN

_LOOKS_LIKE_CONTROL = re.compile(r"<\|.+\|>|<｜.+｜>", re.DOTALL)
"""Of a token that is only "user-defined", as llama.cpp makes `<|start|>` and others of gpt-oss, and converters those
that a tokenizer's authors did not call special: what a template divides roles with must be a control token here."""


class LlamaVocab:
    """Tokeniser tables of one model. Reads only; safe from any thread while the model lives.

    Attributes:
        size: Number of token ids; valid ids are 0 .. size - 1.
        pieces: Bytes that each token id adds to a text; empty for control tokens.
        is_end: bool [size], true for end-of-generation tokens.
        control_ids: Ids of all control tokens by their texts, e.g. "<|im_end|>"; message text must never become one.
        control_texts: Their texts, longest first.
        names: Like `pieces`, but for control tokens, which have their texts.
        bos, eos: Texts of these tokens, empty where the model has none.
        adds_bos: Whether a prompt starts with the BOS token.
        infill_ids: Tokens before what comes before a gap, before what comes behind it, and before what fills it; None
            where the model was not made to fill gaps.
        adds_eos, adds_sep: Whether an encoder's text ends with the EOS token; whether a pair has the SEP token between.
        is_wordpiece: A BERT vocabulary, whose texts stand between BOS and SEP whatever the flags say.
    """

    def __init__(self, handle: llama_cpp.llama_vocab_p) -> None:
        self._handle = handle
        self._inside_stubborn: re.Pattern[str] | None = None
        self.size = llama_cpp.llama_vocab_n_tokens(handle)
        self.bos_id = llama_cpp.llama_vocab_bos(handle)
        self.eos_id = llama_cpp.llama_vocab_eos(handle)
        sep_id = llama_cpp.llama_vocab_sep(handle)
        self.sep_id = sep_id if sep_id >= 0 else self.eos_id
        self.is_wordpiece = llama_cpp.llama_vocab_type(handle) == llama_cpp.LLAMA_VOCAB_TYPE_WPM
        self.adds_eos = bool(llama_cpp.llama_vocab_get_add_eos(handle))
        self.adds_sep = bool(llama_cpp.llama_vocab_get_add_sep(handle))
        self.adds_bos = bool(llama_cpp.llama_vocab_get_add_bos(handle)) and self.bos_id >= 0
        self.control_ids = self._control_ids()
        controls = set(self.control_ids.values())
        self.pieces = [
            b"" if token_id in controls else self._piece(token_id, special=False) for token_id in range(self.size)
        ]
        self.longest_piece = max(1, *map(len, self.pieces))
        self.is_end: npt.NDArray[np.bool_] = np.fromiter(
            (llama_cpp.llama_vocab_is_eog(handle, token_id) for token_id in range(self.size)), np.bool_, self.size
        )
        self.infill_ids = self._infill_ids()
        self.control_texts = tuple(sorted(self.control_ids, key=len, reverse=True))
        self.names = [piece or self.text_of(token_id).encode() for token_id, piece in enumerate(self.pieces)]
        self.bos = self.text_of(self.bos_id)
        self.eos = self.text_of(self.eos_id)

    def tokenize(self, text: str, *, parse_special: bool) -> TokenIds:
        """Turn text into token ids, adding nothing at either end.

        Args:
            text: Any text.
            parse_special: Whether control-token strings in it become control tokens. False for text that a user wrote.
        """
        if parse_special or self._inside_stubborn is None:
            return self._tokenize(text, parse_special=parse_special)
        return [
            token_id
            for part in self._inside_stubborn.split(text)
            for token_id in self._tokenize(part, parse_special=False)
        ]

    def _tokenize(self, text: str, *, parse_special: bool) -> TokenIds:
        data = text.encode("utf-8", "replace")
        capacity = len(data) + 8  # no tokeniser makes more tokens than bytes, but for a few added ones
        buffer = (llama_cpp.llama_token * capacity)()
        count = llama_cpp.llama_tokenize(self._handle, data, len(data), buffer, capacity, False, parse_special)
        if count < 0:  # the exact need, negated
            capacity = -count
            buffer = (llama_cpp.llama_token * capacity)()
            count = llama_cpp.llama_tokenize(self._handle, data, len(data), buffer, capacity, False, parse_special)
        return list(buffer[:count])

    def text_of(self, token_id: int) -> str:
        """Text of one token, control tokens included; empty for an id that the model does not have."""
        if not 0 <= token_id < self.size:
            return ""
        return self._piece(token_id, special=True).decode("utf-8", "replace")

    def pieces_with(self, control_texts: Iterable[str]) -> list[bytes]:
        """`pieces`, in which these control tokens have their texts: for who must see where the model writes them."""
        pieces = list(self.pieces)
        for text in control_texts:
            if text in self.control_ids:
                pieces[self.control_ids[text]] = text.encode()
        return pieces

    def _infill_ids(self) -> tuple[int, int, int] | None:
        prefix, suffix, middle = (
            find(self._handle)
            for find in (llama_cpp.llama_vocab_fim_pre, llama_cpp.llama_vocab_fim_suf, llama_cpp.llama_vocab_fim_mid)
        )
        return (prefix, suffix, middle) if min(prefix, suffix, middle) >= 0 else None

    def _control_ids(self) -> dict[str, int]:
        """NOTE: llama.cpp takes user-defined tokens for what they are in any text, so those are cut in two first."""
        controls: dict[str, int] = {}
        stubborn: list[str] = []
        for token_id in range(self.size):
            attributes = llama_cpp.llama_vocab_get_attr(self._handle, token_id)
            if attributes & _CONTROL_ATTRIBUTES:
                controls[self.text_of(token_id)] = token_id
            elif attributes & llama_cpp.LLAMA_TOKEN_ATTR_USER_DEFINED:
                text = self.text_of(token_id)
                if _LOOKS_LIKE_CONTROL.fullmatch(text):
                    controls[text] = token_id
                    stubborn.append(text)
        if stubborn:
            rests = "|".join(re.escape(text.removeprefix("<")) for text in stubborn)
            self._inside_stubborn = re.compile(f"(?<=<)(?={rests})")
        controls.pop("", None)
        return controls

    def _piece(self, token_id: int, *, special: bool) -> bytes:
        buffer = ctypes.create_string_buffer(64)
        length = llama_cpp.llama_token_to_piece(self._handle, token_id, buffer, len(buffer), 0, special)
        if length < 0:
            buffer = ctypes.create_string_buffer(-length)
            length = llama_cpp.llama_token_to_piece(self._handle, token_id, buffer, len(buffer), 0, special)
        return buffer.raw[:length]
