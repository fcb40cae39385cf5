"""Changes of a text's words that stand for what other languages do otherwise: their order, their articles.

Local shuffling and dropping are the noise of Lample et al. 2018 (arXiv 1711.00043, section 2.3). Postposing turns
English phrases round as languages with postpositions do: `a house / in the north / of Japan` becomes `Japan of / the
north in / a house`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

_ARTICLES = frozenset({"a", "an", "the"})
_OPENERS = frozenset(
    {"about", "after", "against", "among", "as", "at", "because", "before", "between", "but", "by", "during", "for"}
    | {"from", "if", "in", "into", "like", "near", "of", "on", "or", "over", "since", "that", "through", "to", "under"}
    | {"until", "when", "where", "which", "while", "who", "with", "without"}
)
_PAUSES = (".", ",", ";", ":", "!", "?")
_DISTANCES = (1.5, 2.5, 4.0)
_DROPPED_ARTICLES, _DROPPED_WORDS = 0.6, 0.04


def reordered(words: Sequence[str], rng: random.Random) -> list[str]:
    """The same words, shuffled over short distances or with phrases turned round."""
    if rng.random() < 0.5:
        distance = rng.choice(_DISTANCES)
        places = [place + rng.uniform(0, distance) for place in range(len(words))]
        return [words[place] for place in sorted(range(len(words)), key=places.__getitem__)]
    found: list[str] = []
    clause: list[str] = []
    for word in words:
        clause.append(word)
        if word.endswith(_PAUSES):
            found += _turned(clause)
            clause = []
    return found + _turned(clause)


def _turned(clause: Sequence[str]) -> list[str]:
    """A clause's phrases from the last to the first, each with the word that opens it at its end."""
    phrases: list[list[str]] = [[]]
    for word in clause:
        if word.lower() in _OPENERS:
            phrases.append([])
        phrases[-1].append(word)
    turned: list[str] = []
    for phrase in reversed(phrases):
        opened = phrase[:1] and phrase[0].lower() in _OPENERS
        turned += [*phrase[1:], phrase[0]] if opened else phrase
    return turned


def thinned(words: Sequence[str], rng: random.Random) -> list[str]:
    """Without most articles and a few other words; never without all."""
    kept = [
        word for word in words if rng.random() >= (_DROPPED_ARTICLES if word.lower() in _ARTICLES else _DROPPED_WORDS)
    ]
    return kept or list(words)
