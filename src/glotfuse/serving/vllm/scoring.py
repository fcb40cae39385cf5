"""Label scores from vLLM's log-probabilities: what to ask for a tree of label words, and how to add it up.

Label words of one token need the log-probabilities of their tokens after the prompt. For words of several tokens the
tree's nodes are asked as well: the prompt's embeddings followed by those of the tokens on the way to the node. vLLM's
prefix cache hashes embeddings, so it computes what nodes share once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from glotfuse.model.label_tree import ROOT, LabelTree

MOST_TOKEN_IDS = 128
"""Most token ids whose log-probabilities vLLM gives at once."""
_MOST_PROMPTS = 16
"""Most prompts in one request, each with all its embeddings: it bounds the size of requests."""


@dataclass(frozen=True)
class Question:
    """One request: log-probabilities of some tokens after some prompts."""

    places: tuple[int, ...]
    """Indices into the plan's prefixes."""
    token_ids: tuple[int, ...]
    """Asked after each of them."""


@dataclass(frozen=True)
class ScorePlan:
    """What to ask of a server to score all label words of one text."""

    prefixes: tuple[tuple[int, ...], ...]
    """Tokens between the prompt and what is predicted; the first is empty."""
    questions: tuple[Question, ...]
    """Together they cover every token of every label word."""
    words: tuple[tuple[tuple[int, int], ...], ...]
    """For each label word, the (place, token) pairs whose log-probabilities add up to its score."""

    @classmethod
    def of(cls, label_ids: Sequence[Sequence[int]], *, single: bool = False) -> ScorePlan:
        """Plans the questions.

        Args:
            label_ids: Tokens of every label word.
            single: One token in each question, for servers that give no chosen tokens' log-probabilities.
        """
        tree = LabelTree.build(label_ids)
        prefixes: list[tuple[int, ...]] = [()]
        for token_id, parent in zip(tree.token_ids, tree.parents, strict=True):
            prefixes.append((*prefixes[0 if parent == ROOT else parent + 1], token_id))
        words = tuple(tuple((step.node + 1, step.token_id) for step in path) for path in tree.paths)
        pairs = sorted({pair for word in words for pair in word})
        questions = [Question((p,), (t,)) for p, t in pairs] if single else _questions(pairs)
        return cls(tuple(prefixes), tuple(questions), words)

    def scores(self, found: Mapping[tuple[int, int], float]) -> list[float]:
        """Log-probability of each label word from those of (place, token) pairs."""
        return [sum(found[pair] for pair in word) for word in self.words]


def _questions(pairs: Sequence[tuple[int, int]]) -> list[Question]:
    """The fewest questions that cover all pairs within the limits, in the pairs' order."""
    groups: list[tuple[dict[int, None], dict[int, None]]] = []
    for place, token_id in pairs:
        if groups:
            places, token_ids = groups[-1]
            if (place in places or len(places) < _MOST_PROMPTS) and (
                token_id in token_ids or len(token_ids) < MOST_TOKEN_IDS
            ):
                places[place] = token_ids[token_id] = None
                continue
        groups.append(({place: None}, {token_id: None}))
    return [Question(tuple(places), tuple(token_ids)) for places, token_ids in groups]
