"""English training text with words of other languages in it, so that the fusion learns what languages share.

In a view of a text some words are replaced by words of one script that a `glotfuse.training.lexicon` has for them.
Switching with dictionaries is known to help transfer (Qin et al. 2020, arXiv 2006.06402); here the dictionary comes
from the encoder itself, so training still sees no text of another language, only words of the encoder's vocabulary.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import overload

from glotfuse.inputs.batch import PreparedExample
from glotfuse.inputs.reader import InputReader
from glotfuse.training.lexicon import WITHOUT_SPACES, Lexicon, script_of
from glotfuse.training.word_order import reordered, thinned

_WORD = re.compile(r"[^\W\d_]{2,}")
_LEFT = frozenset({"an", "as", "at", "the", "to"})
"""Words that say too little for their neighbours to be translations; `in`, `he` and `of` have good ones."""
_HELD_OUT = 4


def english_words(texts: Iterable[str]) -> list[str]:
    """Words of two letters and more, in lower case, each once, in the order of the alphabet."""
    return sorted({word.lower() for text in texts for word in _WORD.findall(text)} - _LEFT)


@dataclass(frozen=True)
class ViewSettings:
    """How far views are from their texts."""

    share: float = 1.0
    """Greatest probability that a word of a view is replaced, where it has translations; each view draws its own,
    evenly from 0 to this."""
    whole: float = 0.0
    """Share of the views in which every word is replaced that has translations."""
    reordered: float = 0.0
    """Share of the views whose words stand in another order, some left out."""
    split: float = 0.0
    """Greatest share of a view's tokens that are split into smaller ones; each view draws its own, from 0 to this."""


def switch_row(
    row: Mapping[str, str],
    columns: Sequence[str],
    lexicon: Lexicon,
    share: float,
    rng: random.Random,
    *,
    reorder: bool = False,
) -> dict[str, str]:
    """A view of one row: in its columns, words replaced by translations into one script.

    Args:
        row: Fields by column.
        columns: Those with text.
        lexicon: Translations.
        share: Probability that a word that has translations is replaced.
        rng: Chooses script, words and translations.
        reorder: Whether words stand in another order, some left out, and words of scripts without spaces without them.
    """
    (script,) = rng.choices(list(lexicon.weights), list(lexicon.weights.values()))
    table = lexicon.translations[script]

    def replaced(match: re.Match[str]) -> str:
        known = table.get(match.group().lower())
        return rng.choice(known) if known is not None and rng.random() < share else match.group()

    def seen(text: str) -> str:
        if not reorder:
            return _WORD.sub(replaced, text)
        words = [_WORD.sub(replaced, word) for word in reordered(thinned(text.split(), rng), rng)]
        if script not in WITHOUT_SPACES:
            return " ".join(words)
        foreign = [word[:1].isalpha() and script_of(word) == script for word in words]
        spaces = ["" if one and other else " " for one, other in pairwise(foreign)]
        return "".join(word + space for word, space in zip(words, [*spaces, ""], strict=True))

    return {**row, **{column: seen(row[column]) for column in columns}}


def part_of(lexicon: Lexicon, *, held_out: bool) -> Lexicon:
    """The quarter of all foreign words that is kept for development texts, or the rest; the same in every run."""

    def kept(words: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(word for word in words if (zlib.crc32(word.encode()) % _HELD_OUT == 0) == held_out)

    tables = {
        script: {word: part for word, foreign in table.items() if (part := kept(foreign))}
        for script, table in lexicon.translations.items()
    }
    tables = {script: table for script, table in tables.items() if table}
    return replace(lexicon, translations=tables, weights={script: lexicon.weights[script] for script in tables})


class Switcher:
    """Makes views of rows; the same key gives the same view of a row, whatever was asked for before.

    Args:
        lexicon: Translations.
        columns: Those with text.
        settings: How far views are from the rows.
        seed: Of the views.
    """

    def __init__(self, lexicon: Lexicon, columns: Sequence[str], *, settings: ViewSettings, seed: int):
        self._lexicon, self._columns, self._settings, self._seed = lexicon, columns, settings, seed

    def view(self, fields: Mapping[str, str], *key: int, views: float = 1.0) -> Mapping[str, str]:
        """A view of one row, or the row itself.

        Args:
            fields: The row's.
            *key: Numbers that say which view is meant, the row's own among them.
            views: Probability that it is a view.
        """
        rng = random.Random("/".join(str(number) for number in (self._seed, *key)))
        if rng.random() >= views:
            return fields
        settings, share = self._settings, self._settings.share * rng.random()
        if settings.whole and rng.random() < settings.whole:
            share = 1.0
        reorder = settings.reordered > 0 and rng.random() < settings.reordered
        return switch_row(fields, self._columns, self._lexicon, share, rng, reorder=reorder)


class SwitchedExamples(Sequence[PreparedExample]):
    """Training examples of which some are read in views, others in every epoch, drawn when they are asked for.

    What the LM is to answer, and what it reads of the text itself, stays as it was.

    Args:
        plain: N examples as they are.
        fields: (N,) what the encoder reads of each.
        reader: Turns fields into encoder ids.
        draw: From fields, epoch and number of an example to a view of the fields, or the fields.
        whole: Whether a view that has to be cut is not used, for an answer that repeats the text.
        language: Code of the rows' language.
        split: From a view's encoder ids, epoch and number of the example to ids of smaller tokens; None leaves them.
    """

    def __init__(
        self,
        plain: Sequence[PreparedExample],
        fields: Sequence[Mapping[str, str]],
        reader: InputReader,
        draw: Callable[[Mapping[str, str], int, int], Mapping[str, str]],
        *,
        whole: bool = False,
        language: str | None = None,
        split: Callable[[list[int], int, int], list[int]] | None = None,
    ):
        self.plain = plain
        self._fields, self._reader, self._draw, self._split = fields, reader, draw, split
        self._whole, self._language = whole, language
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch, from 0, whose views are given next."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self.plain)

    @overload
    def __getitem__(self, index: int) -> PreparedExample: ...
    @overload
    def __getitem__(self, index: slice) -> list[PreparedExample]: ...
    def __getitem__(self, index: int | slice) -> PreparedExample | list[PreparedExample]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]  # from 0, for the draw
        plain, fields = self.plain[index], self._fields[index]
        seen = self._draw(fields, self._epoch, index)
        if seen is fields:
            return plain
        ((ids, cut),) = self._reader.read([seen], self._language)
        if self._split is not None and not cut:
            smaller = self._split(ids, self._epoch, index)
            ids = smaller if len(smaller) <= self._reader.max_length else ids
        return plain if cut and self._whole else replace(plain, encoder_ids=ids, truncated=plain.truncated or cut)
