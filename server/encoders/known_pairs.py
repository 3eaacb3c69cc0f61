"""Refuses rerankers that rank nonsense: weights that were converted wrongly load, answer, and look alive."""

from __future__ import annotations

from server.encoders.encoder import Encoder, Pairs
from server.errors import LoadFailed

MARGIN = 0.5
"""Least lead of the right document, in logits: sound models lead by 2 to 20."""

EXAMPLES = (
    ("what is the capital of france?", "Paris is the capital and largest city of France."),
    ("where do bananas grow?", "Bananas grow in the tropics and are rich in potassium."),
    ("how does a fridge keep food cold?", "A fridge keeps food cold by pumping heat out of it."),
)
"""Queries and their answers; each answer is irrelevant to the other two queries, so no preference for some texts, and
hardly any luck, passes."""


def check_ranking(reranker: Encoder[Pairs]) -> None:
    """Rank known documents for known queries.

    Raises:
        LoadFailed: With the scores, where the right document does not lead clearly.
    """
    documents = [document for _, document in EXAMPLES]
    for right, (query, _) in enumerate(EXAMPLES):
        scores = reranker.forward(reranker.tokenize(Pairs(query, documents))).tolist()
        best_wrong = max(score for index, score in enumerate(scores) if index != right)
        if not scores[right] - best_wrong >= MARGIN:
            raise LoadFailed(
                f"the reranker failed its self-test: for {query!r} an irrelevant document scored {best_wrong:.3f}, the "
                f"relevant one {scores[right]:.3f}; the weights are damaged, converted wrongly or not those of a "
                "reranker"
            )
