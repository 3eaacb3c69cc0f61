"""Which tokens a delivered piece of content was made of.

Text is held back on its way out: for the rest of a character, for a stop string, for what may be a tag or a call. So
tokens wait here until it is known whether their text is content.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from server.types import TokenLogprob

Span = tuple[int, int]
"""Where something begins and ends, in characters of the text as detokenised."""


class TokenTrail:
    """The tokens of one text that are neither delivered nor dropped, by where their text begins.

    Attributes:
        num_released: Characters of the text that are certain.
    """

    def __init__(self) -> None:
        self._tokens: deque[tuple[int, TokenLogprob]] = deque()
        self.num_released = 0

    def add(self, token: TokenLogprob, *, num_held: int) -> None:
        """Take a token whose text begins `num_held` characters behind all that has been released."""
        self._tokens.append((self.num_released + num_held, token))

    def take(self, spans: Sequence[Span]) -> tuple[TokenLogprob, ...]:
        """Return the tokens that have a character in these spans, which follow all that were asked for before. Tokens
        between them are dropped."""
        return tuple(token for start, end in spans for token in self._take(start, end))

    def drop(self, end: int) -> None:
        """Nothing before this place will be asked for any more."""
        while len(self._tokens) > 1 and self._end_of_first() <= end:
            self._tokens.popleft()

    def _take(self, start: int, end: int) -> list[TokenLogprob]:
        self.drop(start)
        ready: list[tuple[int, TokenLogprob]] = []
        while self._tokens and self._tokens[0][0] < end:
            ready.append(self._tokens.popleft())
        return [token for _, token in ready]

    def _end_of_first(self) -> int:
        """Where the next one begins; but the bytes of a character may be several tokens that begin where it does."""
        return max(self._tokens[0][0] + 1, self._tokens[1][0])
