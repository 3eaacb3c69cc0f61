"""What a model has in hand, how long a newcomer would wait for it, and whether it is let in.

Three bounds: requests, tokens that wait, and the wait that is expected. Whoever comes beyond one of them hears at once
that there is no room, and when to come back. Where several tenants ask, each may fill its share of a bound, so that a
flood by one of them does not shut out the others.

The wait is computed here and now from what this process has sent, at the pace that the worker's heartbeats tell: a
worker that is asked first would answer too late. Knows no channel and no messages.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from server.asker import Asker
from server.config.server_section import Limits
from server.errors import Overloaded
from server.types import Lane

FIRST_ANSWER_TOKENS = 128.0
"""Expected of an answer before the first have ended, if its limit is not below that."""

MAX_RETRY_AFTER_S = 120
"""The SDKs of OpenAI do not wait for longer than that, but come back at once."""

_LEARNING = 0.1


@dataclass(eq=False, slots=True)
class Held:
    """One request in hand.

    Attributes:
        num_tokens: Of its prompt or inputs, as far as they wait: 0 as soon as it is answered with a first word.
        num_answer_tokens: Expected of a generation, of which only so many run at a time; 0 of other requests.
    """

    asker: Asker
    lane: Lane
    num_tokens: int
    num_answer_tokens: float


@dataclass(slots=True)
class _Load:
    """What one tenant has in hand, or all of them."""

    weight: float = 0.0
    num_requests: int = 0
    num_generations: int = 0
    num_answer_tokens: float = 0.0
    num_tokens: dict[Lane, int] = field(default_factory=lambda: {"interactive": 0, "bulk": 0})


class Backlog:
    """The requests in hand of one model.

    Args:
        num_places: Generations that run at a time; None: the model is an encoder.
    """

    def __init__(self, model_id: str, limits: Limits, *, num_places: int | None) -> None:
        self._model_id = model_id
        self._limits = limits
        self._num_places = num_places
        self._loads: dict[str, _Load] = {}
        self._all = _Load()
        self._s_per_token = self._s_per_answer_token = 0.0
        self._answer_tokens = FIRST_ANSWER_TOKENS  # lately, of an answer
        self._computed_share = 1.0  # lately, of what was read: the rest was found in a cache

    @property
    def num_requests(self) -> int:
        return self._all.num_requests

    def set_pace(self, *, s_per_token: float, s_per_answer_token: float) -> None:
        """What a worker's heartbeat says; see `Heartbeat`."""
        self._s_per_token, self._s_per_answer_token = s_per_token, s_per_answer_token

    def enter(
        self,
        asker: Asker,
        num_tokens: int,
        *,
        lane: Lane = "interactive",
        max_answer_tokens: float | None = None,
    ) -> Held:
        """Take a request in; it has to `leave`, however it ends.

        Args:
            max_answer_tokens: Of a generation; None: it is none.

        Raises:
            Overloaded: There is no room for it.
        """
        self._check(asker, num_tokens, lane)
        num_answer_tokens = 0.0 if max_answer_tokens is None else min(max_answer_tokens, self._answer_tokens)
        held = Held(asker, lane, 0, num_answer_tokens)
        mine = self._loads.setdefault(asker.tenant, _Load())
        mine.weight = asker.weight
        for load in (mine, self._all):
            load.num_requests += 1
            load.num_generations += num_answer_tokens > 0
            load.num_answer_tokens += num_answer_tokens
        self.resize(held, num_tokens)
        return held

    def resize(self, held: Held, num_tokens: int) -> None:
        """So many of its tokens wait, as is known now."""
        for load in (self._loads[held.asker.tenant], self._all):
            load.num_tokens[held.lane] += num_tokens - held.num_tokens
        held.num_tokens = num_tokens

    def leave(self, held: Held) -> None:
        self.resize(held, 0)
        for load in (self._loads[held.asker.tenant], self._all):
            load.num_requests -= 1
            load.num_generations -= held.num_answer_tokens > 0
            load.num_answer_tokens -= held.num_answer_tokens
        if not self._loads[held.asker.tenant].num_requests:
            del self._loads[held.asker.tenant]

    def learn(self, num_read: int, *, num_cached: int) -> None:
        """A request has been answered: so much was read for it, and so much of that was known already."""
        if num_read:
            self._computed_share += _LEARNING * (1 - num_cached / num_read - self._computed_share)

    def learn_answer(self, num_tokens: int) -> None:
        """A generation has ended, with so many tokens."""
        self._answer_tokens += _LEARNING * (num_tokens - self._answer_tokens)

    def wait_s(self, asker: Asker) -> float:
        """How long a request of this asker's would wait before it is worked on, if it came now."""
        share, mine = self._share(asker), self._loads.get(asker.tenant, _Load())
        everybody = self._drain_s(self._all, places=1.0)
        return min(everybody, self._drain_s(mine, places=share) / share)

    def _drain_s(self, load: _Load, *, places: float) -> float:
        """Time that it takes until a newcomer behind `load` is worked on, with that part of the places."""
        prompts_s = load.num_tokens["interactive"] * self._s_per_token * self._computed_share
        if self._num_places is None or not load.num_generations:
            return prompts_s
        num_before = max(0.0, load.num_generations + 1 - self._num_places * places)
        answer_s = self._s_per_answer_token * load.num_answer_tokens / load.num_generations
        return prompts_s + num_before * answer_s

    def _check(self, asker: Asker, num_tokens: int, lane: Lane) -> None:
        limits, share, mine = self._limits, self._share(asker), self._loads.get(asker.tenant, _Load())
        wait_s = self.wait_s(asker)
        num_waiting, num_mine = sum(self._all.num_tokens.values()), sum(mine.num_tokens.values())
        if (
            self._all.num_requests >= limits.max_queued_requests
            and mine.num_requests >= share * limits.max_queued_requests
        ):
            self._refuse(f"holds {self._all.num_requests} requests already, its limit", wait_s)
        if (
            num_waiting
            and num_waiting + num_tokens > limits.max_queued_tokens
            and num_mine + num_tokens > share * limits.max_queued_tokens
        ):
            limit = f"{limits.max_queued_tokens} is its limit"
            self._refuse(f"has {num_waiting} tokens waiting, and this request has about {num_tokens}; {limit}", wait_s)
        if lane == "interactive" and wait_s > limits.max_wait_s:
            self._refuse(f"is busy for longer than max_wait_s = {limits.max_wait_s:g}", wait_s)

    def _refuse(self, reason: str, wait_s: float) -> None:
        raise Overloaded(
            f"model {self._model_id!r} {reason}; a request would wait about {wait_s:.0f} s; try again later",
            retry_after_s=min(max(1, math.ceil(wait_s)), MAX_RETRY_AFTER_S),
        )

    def _share(self, asker: Asker) -> float:
        """Part of the model that the asker's tenant gets while those are here who are."""
        others = sum(load.weight for tenant, load in self._loads.items() if tenant != asker.tenant)
        return asker.weight / (asker.weight + others)
