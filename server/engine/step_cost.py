"""What steps cost on this machine with this model, learned from the steps themselves.

Knows no clock: whoever runs a step says how long it took.
"""

from __future__ import annotations

import math

MEMORY = 0.95
"""Share of what was known that a new step leaves standing: the last twenty or so steps count."""

PREFILL_MEMORY = 1024
"""Prompt tokens after which what was known of their cost has faded to a third."""

LEAST_SPREAD = 0.05
"""Variance of step sizes below which they say nothing about the cost of one more token."""

MAX_SMALL_STEP = 32
"""Tokens of a step that still counts as decoding; others tell the speed of prefill."""


class StepCost:
    """Estimates, all in seconds.

    Attributes:
        prefill_s_per_token: In large steps; 0 before the first.
    """

    def __init__(self) -> None:
        self.prefill_s_per_token = 0.0
        self._small = _Line()

    def observe(self, num_tokens: int, seconds: float) -> None:
        """Learn from a step."""
        if num_tokens <= MAX_SMALL_STEP:
            self._small.observe(num_tokens, seconds)
        elif self.prefill_s_per_token:
            weight = 1 - math.exp(-num_tokens / PREFILL_MEMORY)
            self.prefill_s_per_token += weight * (seconds / num_tokens - self.prefill_s_per_token)
        else:
            self.prefill_s_per_token = seconds / num_tokens

    def of_small_step(self, num_tokens: int) -> float:
        """Expected cost of a step of a few tokens that all want logits."""
        return max(0.0, self._small.mean_y + self._small.slope * (num_tokens - self._small.mean_x))

    @property
    def small_step_s_per_token(self) -> float:
        """What one more token adds to such a step."""
        return max(0.0, self._small.slope)


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
        dx, dy = x - self.mean_x, y - self.mean_y
        self.mean_x += (1 - MEMORY) * dx
        self.mean_y += (1 - MEMORY) * dy
        self._variance = MEMORY * (self._variance + (1 - MEMORY) * dx * dx)
        self._covariance = MEMORY * (self._covariance + (1 - MEMORY) * dx * dy)
        if self._variance > LEAST_SPREAD:
            self.slope = self._covariance / self._variance
