from __future__ import annotations

from collections.abc import Iterator

import pytest

from server.engine.grammar_compiler import GrammarCompiler
from tests.fakes.vocabulary import IS_END, PIECES, tokenize


@pytest.fixture(scope="session")
def grammars() -> Iterator[GrammarCompiler]:
    """A compiler over the small vocabulary, with its child."""
    compiler = GrammarCompiler(PIECES, IS_END, tokenize)
    yield compiler
    compiler.close()
