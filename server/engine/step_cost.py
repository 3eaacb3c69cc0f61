"""What steps cost on this machine with this model, learned from the steps themselves.

Knows no clock: whoever runs a step says how long it took.
"""

from __future__ import annotations

import math

MEMORY = 0.95
"""Share of what was known that a new step leaves standing: the last twenty or so steps count."""

PREFILL_MEMORY = 1024
"""Prompt tokens after which what was known of their cost has faded to a third."""

MIN_PROMPT_TOKENS = 32
"""Prompt tokens of a step from which it tells what one costs."""

LEAST_SPREAD = 0.05
"""Variance of step sizes below which they say nothing about the cost of one more token."""

FADING = 0.995
"""Of the price of one more token, each step that says nothing about it: one slow step must not be believed for ever."""

MAX_SURPRISE = 2.0
"""How many times the usual cost a step may differ from it; beyond that the machine was busy with something else."""


class StepCost:
    """Estimates, all in seconds.

    Attributes:
        prefill_s_per_token: Of a prompt's token; 0 before the first are known.
    """

    def __init__(self) -> None:
        self.prefill_s_per_token = 0.0
        self._decode = _Line()

    def observe(self, *, num_prompt_tokens: int, num_decode_tokens: int, seconds: float) -> None:
        """Learn from a step; drafted tokens count as decoded."""
        if num_prompt_tokens == 0:
            self._decode.observe(num_decode_tokens, seconds)
        elif num_prompt_tokens >= MIN_PROMPT_TOKENS:
            most = seconds / num_prompt_tokens
            net = max(most / 2, (seconds - self.of_decode_step(num_decode_tokens)) / num_prompt_tokens)
            weight = 1 - math.exp(-num_prompt_tokens / PREFILL_MEMORY) if self.prefill_s_per_token else 1.0
            self.prefill_s_per_token += weight * (net - self.prefill_s_per_token)

    def of_decode_step(self, num_tokens: int) -> float:
        """Expected cost of a step of tokens that all want logits; 0 for none, and before the first step."""
        if not num_tokens:
            return 0.0
        return max(0.0, self._decode.mean_y + self._decode.slope * (num_tokens - self._decode.mean_x))

    @property
    def decode_s_per_token(self) -> float:
        """What one more token adds to such a step."""
        return max(0.0, self._decode.slope)


class _Line:
    """Least squares through the latest points: moments that fade."""

    def __init__(self) -> None:
        self.mean_x = self.mean_y = 0.0
        self.slope = 0.0  # the last one known, while all points have the same x
        self._variance = self._covariance = 0.0
        self._is_empty = True

    def observe(self, x: float, y: float) -> None:
        if self._is_empty:
            self.mean_x, self.mean_y, self._is_empty = x, y, False
            return
        expected = self.mean_y + max(0.0, self.slope) * (x - self.mean_x)
        dx, dy = (
            x - self.mean_x,
            min(y, expected + MAX_SURPRISE * self.mean_y * max(1.0, x / self.mean_x)) - self.mean_y,
        )
        self.mean_x += (1 - MEMORY) * dx
        self.mean_y += (1 - MEMORY) * dy
        self._variance = MEMORY * (self._variance + (1 - MEMORY) * dx * dx)
        self._covariance = MEMORY * (self._covariance + (1 - MEMORY) * dx * dy)
        if self._variance > LEAST_SPREAD:
            self.slope = self._covariance / self._variance
        else:
            self.slope *= FADING
