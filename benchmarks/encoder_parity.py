"""Whether all servers answer the same: their answers to the probe, held against one of them. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.bars import Role
from benchmarks.results import Section

Answers = Sequence[Sequence[Sequence[float]]]
"""For each request of the probe, for each of its inputs, its vector; a score is a vector of one number."""

REFERENCE: Role = "plain"


def parity(servers: Section) -> dict[Role, Section]:
    """How far the answers of each role are from the reference: of vectors 1 - cosine, of scores the difference."""
    answers: dict[Role, Answers] = {
        role: server["runtime"]["answers"] for role, server in servers.items() if server["runtime"].get("answers")
    }
    if REFERENCE not in answers:
        return {}
    return {role: {"max_distance": distance(each, answers[REFERENCE])} for role, each in answers.items()}


def distance(answers: Answers, reference: Answers) -> float:
    """The largest distance between two answers to the same input."""
    ours, theirs = (
        np.array([vector for answer in each for vector in answer], np.float64) for each in (answers, reference)
    )
    if ours.shape[1] == 1:
        return float(np.abs(ours - theirs).max())
    cosines = (ours * theirs).sum(axis=1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    return float((1 - cosines).max())
