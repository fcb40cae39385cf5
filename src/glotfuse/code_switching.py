"""English training text with words of other languages in it, so that the fusion learns what languages share.

In a view of a text some words are replaced by words of one script that a `glotfuse.lexicon` has for them. Switching
with dictionaries is known to help transfer (Qin et al. 2020, arXiv 2006.06402); here the dictionary comes from the
encoder itself, so training still sees no text of another language, only words of the encoder's vocabulary.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from glotfuse.inputs import InputReader
from glotfuse.lexicon import Lexicon

_WORD = re.compile(r"[^\W\d_]{3,}")
_HELD_OUT = 4


def english_words(texts: Iterable[str]) -> list[str]:
    """Words of three letters and more, in lower case, each once, in the order of the alphabet."""
    return sorted({word.lower() for text in texts for word in _WORD.findall(text)})


def switch_row(
    row: Mapping[str, str], columns: Sequence[str], lexicon: Lexicon, share: float, rng: random.Random
) -> dict[str, str]:
    """A view of one row: in its columns, words replaced by translations into one script.

    Args:
        row: Fields by column.
        columns: Those with text.
        lexicon: Translations.
        share: Probability that a word that has translations is replaced.
        rng: Chooses script, words and translations.
    """
    (script,) = rng.choices(list(lexicon.weights), list(lexicon.weights.values()))
    table = lexicon.translations[script]

    def replaced(match: re.Match[str]) -> str:
        known = table.get(match.group().lower())
        return rng.choice(known) if known is not None and rng.random() < share else match.group()

    return {**row, **{column: _WORD.sub(replaced, row[column]) for column in columns}}


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


class SwitchingReader(InputReader):
    """Reads views of some texts in place of the texts; what the LM is to answer stays as it was.

    Args:
        reader: How texts are read.
        lexicon: Translations.
        views: Probability that a text is switched.
        share: Greatest probability that a word of such a text is replaced, where it has translations; each text draws
            its own, evenly from 0 to this.
        seed: Of the views.
    """

    def __init__(self, reader: InputReader, lexicon: Lexicon, *, views: float, share: float, seed: int | str):
        super().__init__(
            reader.encoder,
            template=reader.template,
            cut_column=reader.cut_column,
            max_length=reader.max_length,
            max_text_tokens=reader.max_text_tokens,
        )
        self._lexicon, self._views, self._share = lexicon, views, share
        self._rng = random.Random(seed)

    def seen(self, rows: Sequence[Mapping[str, str]]) -> Sequence[Mapping[str, str]]:
        """The rows or views of them."""
        return [
            switch_row(row, self.columns, self._lexicon, self._share * self._rng.random(), self._rng)
            if self._rng.random() < self._views
            else row
            for row in rows
        ]
