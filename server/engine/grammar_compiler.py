"""Grammars to masks: what a request wants its text to be, compiled for one model's vocabulary by llguidance.

What cannot be honoured is refused with the reason: nothing is approximated and nothing ignored. A grammar is hostile
until it has been tried out in a process that may die of it. Compiled ones are kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from server.engine.deep_thread import deep_thread
from server.engine.grammar_text import LIMITS, NoGrammar, Trial, check_size, reason_of
from server.engine.grammar_trial import GrammarTrials
from server.engine.token_mask import CompiledGrammar, TokenMask
from server.errors import InvalidRequest, Overloaded
from server.types import Grammar, GrammarKind, TokenIds

MAX_COMPILE_S = 2.0
"""What a grammar may take to compile, tried out and then for the model."""

MAX_KEPT = 64
"""Compiled grammars that are kept, the latest used."""

MAX_KEPT_BYTES = 256 * 1024
"""Of their texts: the worst found take a kilobyte of memory for each."""


class GrammarCompiler:
    """Compiles grammars for one vocabulary. One thread at a time.

    Args:
        pieces: Bytes of each token; those without any are never allowed, save `is_end`.
        is_end: bool [vocab_size], the tokens that end a complete text.
        tokenize: How the model would write a text; any thread may call it.
    """

    def __init__(
        self, pieces: Sequence[bytes], is_end: npt.NDArray[np.bool_], tokenize: Callable[[str], TokenIds]
    ) -> None:
        self._vocabulary = _Vocabulary(pieces, is_end, tokenize)
        self._trials = GrammarTrials(max_s=MAX_COMPILE_S)
        self._kept: OrderedDict[Trial, CompiledGrammar] = OrderedDict()
        self._last: Future[CompiledGrammar] | None = None

    def mask(self, grammar: Grammar, *, content: Grammar | None = None) -> TokenMask:
        """The mask of a new sequence.

        Args:
            content: What `@content` stands for, in a grammar of kind `answer`.

        Raises:
            InvalidRequest: The grammar is not one, or cannot be honoured, or takes too much; `param` is the grammar's.
            Overloaded: One that took too much is not over yet.
        """
        trial = Trial(grammar, content)
        compiled = self._kept.pop(trial, None)
        if compiled is None or compiled.is_spoiled:
            compiled = self._compile(trial)
        self._keep(trial, compiled)
        return TokenMask(compiled, param=grammar.param)

    def close(self) -> None:
        """End the child that tries grammars out."""
        self._trials.close()

    def _keep(self, trial: Trial, compiled: CompiledGrammar) -> None:
        self._kept[trial] = compiled
        while len(self._kept) > MAX_KEPT or sum(kept.size_bytes for kept in self._kept) > MAX_KEPT_BYTES:
            self._kept.popitem(last=False)

    def _compile(self, trial: Trial) -> CompiledGrammar:
        try:
            return self._compile_in_time(self._tried_out(trial))
        except NoGrammar as exc:
            grammar = trial.grammar
            raise InvalidRequest(f"{_NAMES[grammar.kind]} cannot be honoured: {exc}", param=grammar.param) from exc

    def _tried_out(self, trial: Trial) -> str:
        """What llguidance is to be given. Raises NoGrammar."""
        check_size(trial)
        if not self._vocabulary.end_ids:
            raise NoGrammar("the model has no token to end a text with")
        outcome = self._trials.run(trial)
        if not outcome.source:
            raise NoGrammar(outcome.reason)
        return outcome.source

    def _compile_in_time(self, source: str) -> CompiledGrammar:
        """Compile for the model; a thread cannot be killed, but what comes here is known to end. Raises NoGrammar."""
        if self._last is not None and not self._last.done():
            raise Overloaded("a grammar of another request is still being compiled; try again later")
        self._thread.submit(lambda: self._tokenizer).result()  # once, in its own time
        self._last = self._thread.submit(self._begin, source)
        try:
            return self._last.result(MAX_COMPILE_S)
        except TimeoutError:
            raise NoGrammar(f"it takes longer than {MAX_COMPILE_S:g} s to compile; make it simpler") from None

    @cached_property
    def _thread(self) -> ThreadPoolExecutor:
        return deep_thread("grammars")

    # ---- the compiling thread

    @cached_property
    def _tokenizer(self) -> LLTokenizer:
        """Takes a second for the largest vocabularies, so it is made for the first grammar only."""
        return self._vocabulary.to_llguidance()

    def _begin(self, source: str) -> CompiledGrammar:
        matcher = LLMatcher(self._tokenizer, source, log_level=0, limits=LIMITS)
        if not matcher.is_error():
            compiled = CompiledGrammar.begin(matcher, self._vocabulary.size)
        if matcher.is_error():
            raise NoGrammar(reason_of(matcher))
        return compiled


_NAMES: dict[GrammarKind, str] = {
    "json_object": "JSON",
    "json_schema": "the JSON schema",
    "regex": "the regular expression",
    "lark": "the Lark grammar",
    "gbnf": "the GBNF grammar",
    "answer": "the grammar of the answer",
}


class _Vocabulary:
    """A model's vocabulary as llguidance wants to see it."""

    bos_token_id = None

    def __init__(
        self, pieces: Sequence[bytes], is_end: npt.NDArray[np.bool_], tokenize: Callable[[str], TokenIds]
    ) -> None:
        self.size = len(pieces)
        self.tokens = list(pieces)
        self.end_ids = [int(token_id) for token_id in np.flatnonzero(is_end)]
        self.eos_token_id = self.end_ids[0] if self.end_ids else 0
        self._tokenize = tokenize

    def to_llguidance(self) -> LLTokenizer:
        made = LLTokenizer(TokenizerWrapper(self), eos_token=self.end_ids, slices=LLTokenizer.json_slices())
        self._greedy = made.greedy_tokenize
        return made

    def __call__(self, text: str) -> TokenIds:
        """The tokens of what a grammar leaves no choice about: the model's own, if they are these bytes and no others.

        Some tokenisers put a space before every text.
        """
        token_ids = self._tokenize(text)
        is_exact = b"".join(map(self.tokens.__getitem__, token_ids)) == text.encode()
        return token_ids if is_exact else self._greedy(text)
