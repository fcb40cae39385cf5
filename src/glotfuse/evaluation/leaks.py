"""Leaks: what would make a score look better than it is, found before anybody believes it.

Three things are looked for: test rows that occur in training, training or development rows in another script than
their language's, and languages that are measured although they taught or chose the model. Nothing is refused here; a
`Leak` says what was found and what to do.

Two texts count as the same if they agree after normalisation: NFKC and case folding, without white space, punctuation
and invisible characters. A row is all its text columns in order. Rows of 50 normalised characters or more also count
if one contains the other. Translations of a training row are not recognised: for parallel data check the test rows of
the training language, whose leaks are leaks in every language.
"""

from __future__ import annotations

import functools
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import regex

from glotfuse.languages.facts import UNKNOWN_SCRIPT, script_name, script_of
from glotfuse.languages.names import find_language, is_english, name_of
from glotfuse.tasks import Example, Task, split_name

MIN_CONTAINED = 50
"""Shortest normalised text, in characters, that is looked for inside others."""
MIN_LETTERS = 8
"""Rows with fewer letters are not judged by script: a row may be one name or abbreviation."""
NUM_EXAMPLES = 5
"""How many rows a leak shows; the rest is counted."""

_BLOCK = MIN_CONTAINED // 2
_SHOWN = 80
_COLUMN_END = "\x1f"
_IGNORED = regex.compile(r"[\s\p{P}\p{Z}\p{Cc}\p{Cf}]+")
_IGNORED_ASCII = {i: None for i in range(128) if _IGNORED.match(chr(i))}
_LETTER = regex.compile(r"[[\p{L}\p{M}]--[\p{Script=Common}\p{Script=Inherited}]]", regex.V1)
_UNICODE_SCRIPTS = {  # ISO 15924 codes that stand for several scripts of Unicode, or for another name of one
    "Hang": ("Hang", "Hani"),
    "Hans": ("Hani", "Bopo"),
    "Hant": ("Hani", "Bopo"),
    "Jpan": ("Hani", "Hira", "Kana"),
    "Kore": ("Hang", "Hani"),
}


@dataclass(frozen=True)
class Leak:
    """One finding.

    Attributes:
        kind: `repeated rows`, `other script`, `not zero-shot` or `chosen on measured rows`.
        language: Language code of the rows, or of the measured language.
        count: Rows concerned; 0 where the finding is about a language as a whole.
        total: Rows looked at; 0 likewise.
        examples: The first few, in words.
        advice: What it means and what to do.
    """

    kind: str
    language: str
    count: int
    total: int
    examples: tuple[str, ...]
    advice: str

    def __str__(self) -> str:
        return self.summary()

    def summary(self) -> str:
        """Returns one line for a log or report."""
        rows = f"{self.count} of {self.total} rows; " if self.total else ""
        return f"{self.kind}, {name_of(self.language)} ({self.language}): {rows}{self.advice}"


class TrainingTexts:
    """Normalised training rows, to compare the test rows of several languages with."""

    def __init__(self, rows: Iterable[Example]) -> None:
        """Normalises all rows.

        Args:
            rows: What the model was trained on; add the development rows to find those that chose it too.
        """
        self._rows = list(rows)
        self._texts = [normalised(row) for row in self._rows]
        self._first: dict[str, int] = {}
        for i, text in enumerate(self._texts):
            self._first.setdefault(text, i)

    def repeated(self, test: Sequence[Example], language: str) -> Leak | None:
        """Finds the test rows that occur among these, whole or, if they are long, one inside the other.

        The time grows with the number of characters, not with the number of pairs.

        Args:
            test: Rows that are measured on, all of one language.
            language: Its code.

        Returns:
            The finding, or `None` if no test row occurs in training.
        """
        texts = [normalised(row) for row in test]
        found = {i: self._first[text] for i, text in enumerate(texts) if text in self._first}
        rest = list(dict.fromkeys(t for i, t in enumerate(texts) if i not in found and len(t) >= MIN_CONTAINED))
        contained: dict[str, int] = {}
        for text, index in chain(_within(rest, self._texts), self._inside(rest)):
            contained[text] = min(index, contained.get(text, index))
        found |= {i: contained[text] for i, text in enumerate(texts) if text in contained}
        if not found:
            return None
        examples = [
            f"{_where(test[i])} repeats {_where(self._rows[found[i]])}: {_shortened(test[i])}" for i in sorted(found)
        ]
        return Leak(
            "repeated rows",
            language,
            len(found),
            len(test),
            tuple(examples[:NUM_EXAMPLES]),
            "test rows occur in training, whole or in part, so the score is too high. Take them out of the training "
            "data and train anew.",
        )

    def _inside(self, haystacks: list[str]) -> Iterator[tuple[str, int]]:
        """Yields each of `haystacks` that contains a training text, with that one's index."""
        starts = {hash(text[i : i + MIN_CONTAINED]) for text in haystacks for i in range(len(text) - MIN_CONTAINED + 1)}
        needles = [text for text in self._first if len(text) >= MIN_CONTAINED and hash(text[:MIN_CONTAINED]) in starts]
        for needle, i in _within(needles, haystacks):
            yield haystacks[i], self._first[needle]


def normalised(row: Example) -> str:
    """Returns all texts of a row as they are compared.

    A text of nothing but punctuation stays as it is, for without it all such texts would be the same.
    """
    return _COLUMN_END.join(_normalised(text) for text in row.fields.values())


def foreign_rows(rows: Sequence[Example], declared_language: str) -> Leak | None:
    """Finds rows of which more than two thirds of the letters are of other scripts than the declared language's.

    Numbers, punctuation and emoji do not count, nor do rows with fewer than 8 letters. Half would be too strict a limit
    where a script needs few letters: a Chinese sentence with two English names has more Latin letters than Chinese.
    Two languages in the same script are not told apart: German among English rows goes unnoticed.

    Args:
        rows: Training or development rows.
        declared_language: The language that they are said to be in.

    Returns:
        The finding, or `None` if there is no such row or the script of the language is not known.
    """
    own_letter = _letter_of(script_of(declared_language))
    if own_letter is None:
        return None
    foreign = [row for row in rows if _is_foreign(" ".join(row.fields.values()), own_letter)]
    if not foreign:
        return None
    return Leak(
        "other script",
        declared_language,
        len(foreign),
        len(rows),
        tuple(f"{_where(row)}: {_shortened(row)}" for row in foreign[:NUM_EXAMPLES]),
        f"rows declared as {name_of(declared_language)} are mostly not in {script_name(declared_language)} script. If "
        "they are in a measured language, its score is not zero-shot: take them out, or declare their language.",
    )


def check_languages(
    task: Task,
    *,
    trained_on: Iterable[str] | None = None,
    chosen_on: Iterable[str] | None = None,
    measured: Iterable[str] | None = None,
    split: str = "test",
) -> list[Leak]:
    """Finds measured languages that also taught the model or chose among its checkpoints and settings.

    A language counts in any of its scripts and spellings. English is exempt, for it is the usual source language and
    reports average without it; but development rows that chose the checkpoint are no measurement in any language.

    Args:
        task: The task.
        trained_on: Languages of the training rows; None for those of the task.
        chosen_on: Languages of the development rows; None for those of the task.
        measured: Languages that are scored; None for those of the task.
        split: The split that is scored.
    """
    taught = {_key(code) for code in (task.languages("train") if trained_on is None else trained_on)}
    chosen = {_key(code) for code in (task.languages("dev") if chosen_on is None else chosen_on)}
    scored = task.languages(split, evaluation=True) if measured is None else measured
    leaks = []
    for code in dict.fromkeys(scored):
        roles = [role for role, codes in (("training", taught), ("development", chosen)) if _key(code) in codes]
        if roles and not is_english(code):
            advice = f"it was also a language of {' and '.join(roles)}. Report its score apart from the zero-shot ones."
            leaks.append(Leak("not zero-shot", code, 0, 0, (), advice))
        if split_name(split) == "dev" and "development" in roles:
            advice = "these rows chose the checkpoint, so the score is too high. Measure on test data."
            leaks.append(Leak("chosen on measured rows", code, 0, 0, (), advice))
    return leaks


def _within(needles: Sequence[str], haystacks: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Yields each needle that stands in a haystack, with the haystack's index.

    Haystacks are cut into blocks of 25 characters. A needle of 50 or more covers a whole block, which begins at one of
    its first 25 characters; so it is enough to look up each block among those, and then the needle itself.

    Args:
        needles: Texts of at least 50 characters.
        haystacks: Texts of any length.
    """
    offsets: dict[str, set[int]] = {}
    by_start: dict[str, dict[int, set[str]]] = {}  # first 50 characters -> length -> needles
    for needle in needles:
        for offset in range(_BLOCK):
            offsets.setdefault(needle[offset : offset + _BLOCK], set()).add(offset)
        by_start.setdefault(needle[:MIN_CONTAINED], {}).setdefault(len(needle), set()).add(needle)
    for i, text in enumerate(haystacks):
        for block in range(0, len(text) - _BLOCK + 1, _BLOCK):
            for offset in offsets.get(text[block : block + _BLOCK], ()):
                start = block - offset
                if start < 0:
                    continue
                for length, candidates in by_start.get(text[start : start + MIN_CONTAINED], {}).items():
                    found = text[start : start + length]
                    if found in candidates:
                        yield found, i


def _normalised(text: str) -> str:
    if text.isascii():
        folded = text.casefold()
        return folded.translate(_IGNORED_ASCII) or folded.strip()
    folded = unicodedata.normalize("NFKC", text).casefold()
    return _IGNORED.sub("", unicodedata.normalize("NFKC", folded)) or folded.strip()


@functools.cache
def _letter_of(script: str) -> regex.Pattern[str] | None:
    """Returns a pattern for the letters of a script, None where Unicode does not have it."""
    if script == UNKNOWN_SCRIPT:
        return None
    try:
        names = "".join(rf"\p{{Script={name}}}" for name in _UNICODE_SCRIPTS.get(script, (script,)))
        return regex.compile(rf"[[\p{{L}}\p{{M}}]&&[{names}]]", regex.V1)
    except regex.error:
        return None


def _is_foreign(text: str, own_letter: regex.Pattern[str]) -> bool:
    if text.isascii() and own_letter.match("a"):
        return False
    counts = {True: 0, False: 0, None: 0}
    for character, count in Counter(text).items():
        counts[_is_own(character, own_letter)] += count
    return counts[True] + counts[False] >= MIN_LETTERS and counts[False] > 2 * counts[True]


@functools.lru_cache(maxsize=100_000)
def _is_own(character: str, own_letter: regex.Pattern[str]) -> bool | None:
    """Whether a letter is of the script; None for what is no letter of any one script."""
    return bool(own_letter.match(character)) if _LETTER.match(character) else None


def _key(code: str) -> str:
    """Returns what a language is compared by: its ISO 639-3 code, or the code as given if it is unknown."""
    language = find_language(code)
    return language.code[:3] if language else code


def _where(row: Example) -> str:
    return f"{row.source}, row {row.row}"


def _shortened(row: Example) -> str:
    text = " | ".join(" ".join(value.split()) for value in row.fields.values())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
