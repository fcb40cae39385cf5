"""A task: which texts are read, which words answer, and where the data comes from."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from string import Formatter
from typing import Literal

from glotfuse.errors import ConfigError, DataError, did_you_mean
from glotfuse.tasks.examples import Example, LoadReport, Split
from glotfuse.tasks.rows import NUM_SHOWN, Fault, ReadResult, read_examples
from glotfuse.tasks.splits import SPLIT_NAMES, Source, split_name

_NUMBER = re.compile(r"[-+]?\d+([.,]\d+)?|true|false", re.IGNORECASE)


@dataclass(frozen=True)
class Task:
    """Texts, label words, prompt and data of one task. English-only training is part of it.

    The train and dev splits, which teach and choose, are read in `train_language` alone. Only with
    `evaluation=True`, to measure on, is dev read in other languages; train never is.

    Attributes:
        name: Name in reports.
        source: Where the rows come from.
        text_columns: Columns with the texts.
        label_column: Column with the answer; None for unlabelled text.
        label_words: The word that stands for each raw label, in order of presentation.
        template: What the encoder reads, with each text column in braces.
        instruction: The English instruction in the LM's prompt; `{labels}` becomes the label words.
        cut_column: The text column that is shortened when a text is too long; '' stands for the first.
        train_language: The language of the train and dev splits.
        target_languages: The languages to evaluate on; None for all that have data.
        on_invalid_row: 'error' to refuse data with faulty rows, 'skip' to leave them out and count them.
    """

    name: str
    source: Source
    text_columns: Sequence[str] = ("text",)
    label_column: str | None = "label"
    label_words: Mapping[str, str] = field(default_factory=dict)
    template: str = "{text}"
    instruction: str = ""
    cut_column: str = ""
    train_language: str = "eng_Latn"
    target_languages: Sequence[str] | None = None
    on_invalid_row: Literal["error", "skip"] = "error"

    def __post_init__(self) -> None:
        """Checks that the parts fit together.

        Raises:
            ConfigError: Naming the part that does not.
        """
        object.__setattr__(self, "text_columns", tuple(self.text_columns))
        object.__setattr__(self, "cut_column", self.cut_column or next(iter(self.text_columns), ""))
        words = {unicodedata.normalize("NFC", raw): word for raw, word in self.label_words.items()}
        if len(words) < len(self.label_words):
            self._refuse("label_words", f"labels that differ, found one typed in two ways: {list(self.label_words)}")
        object.__setattr__(self, "label_words", words)  # as the labels of the rows are
        self._check_columns()
        self._check_labels()
        found = set(_placeholders(self.instruction, f"task {self.name}: instruction"))
        if found - ({"labels"} if self.label_column else set()):
            self._refuse("instruction", f"no placeholder but {{labels}} in a labelled task, found {sorted(found)}")
        if self.on_invalid_row not in ("error", "skip"):
            self._refuse("on_invalid_row", f"'error' or 'skip', found {self.on_invalid_row!r}")

    @property
    def labels(self) -> list[str]:
        """The label words, in order."""
        return list(self.label_words.values())

    def render(self, fields: Mapping[str, str]) -> str:
        """Returns what the encoder reads for the texts of one example."""
        return self.template.format_map(fields)

    def languages(self, split: str, *, evaluation: bool = False) -> list[str]:
        """Returns the languages `load` takes for `split`.

        Args:
            split: train, dev (validation, val) or test.
            evaluation: Whether dev is meant to measure on, and not to choose by.
        """
        split = split_name(split)
        available = self.source.languages(split)
        if split == "train" or (split == "dev" and not evaluation):
            return [self.train_language] if self.train_language in available else []
        if self.target_languages is None:
            return available
        return [language for language in self.target_languages if language in available]

    def missing_languages(self, split: str) -> list[str]:
        """Returns the languages that cannot be evaluated on `split`, for want of data in it.

        They are those of `target_languages`, or else all that have data in any split.
        """
        split = split_name(split)
        known: Sequence[str] | None = self.target_languages
        if known is None:
            known = sorted({language for name in SPLIT_NAMES for language in self.source.languages(name)})
        available = self.source.languages(split)
        return [language for language in known if language not in available]

    def check_measured(self, split: str, languages: Sequence[str]) -> None:
        """Refuses languages that cannot be measured on `split`.

        Raises:
            DataError: Naming the first of them.
        """
        available = self.languages(split, evaluation=True)
        for language in languages:
            if language not in available:
                raise DataError(
                    f"Expected languages out of {', '.join(available) or 'none'} in the {split} data of {self.name}; "
                    f"found {language!r}.{did_you_mean(language, available)}"
                )

    def load(self, split: str, language: str, *, evaluation: bool = False) -> Split:
        """Reads one split in one language.

        Args:
            split: train, dev (validation, val) or test; each is read from its own data only.
            language: A language code.
            evaluation: Whether dev is meant to measure on, and not to choose by.

        Raises:
            DataError: If there is no such data, if it is not the training language's although it would teach
                or choose, or if rows are faulty and `on_invalid_row` is 'error'.
        """
        split = split_name(split)
        if language != self.train_language and (split == "train" or (split == "dev" and not evaluation)):
            advice = "" if split == "train" else ", or load it with evaluation=True to measure on it"
            raise DataError(
                f"task {self.name}: expected {split} data in the training language, {self.train_language}; "
                f"found {language!r}. Only test data is read in other languages: set train_language{advice}."
            )
        if language not in self.source.languages(split):
            raise self._no_data(split, language)
        columns = [*self.text_columns, *([self.label_column] if self.label_column else [])]
        table = self.source.read(split, language, columns)
        result = read_examples(table, language, self.text_columns, self.label_column, self.label_words)
        self._check_result(result, table.name)
        report = LoadReport(
            table.name,
            split,
            language,
            rows=result.num_rows,
            kept=len(result.examples),
            empty=result.counts[Fault.EMPTY],
            unknown_label=result.counts[Fault.UNKNOWN_LABEL],
            missing_label=result.counts[Fault.MISSING_LABEL],
            malformed=result.counts[Fault.MALFORMED],
            duplicates=result.num_duplicates,
            problems=tuple(result.shown),
            warnings=(*table.notes, *(self._warnings(result.examples) if split == "train" else ())),
        )
        return Split(result.examples, report)

    def _warnings(self, examples: Sequence[Example]) -> Iterator[str]:
        if self.labels and all(_NUMBER.fullmatch(word) for word in self.labels):
            yield (
                f"The LM is taught to say {', '.join(map(repr, self.labels[:5]))}, which are no words. Set "
                f"task.label_words to what they stand for, such as {{{self.labels[0]!r}: sports, ...}}."
            )
        without = sorted(set(self.labels) - {str(example.label) for example in examples})
        if without:
            more = f" and {len(without) - 20} more" if len(without) > 20 else ""
            yield f"No training row has the label {', '.join(map(repr, without[:20]))}{more}: it is not learned."

    def _no_data(self, split: str, language: str) -> DataError:
        available = self.source.languages(split)
        dev = self.source.languages("dev") if split == "test" else []
        note = f" The dev split has: {', '.join(dev)}." if dev else ""
        if not available:
            return DataError(
                f"task {self.name}: expected {split} data, found none: {self.source.explain(split)}.{note} "
                "Rename the files, or name the file of each split."
            )
        without = self.missing_languages(split)
        if without and split != "train":
            note = f" Languages without {split} data: {', '.join(without)}.{note}"
        return DataError(
            f"task {self.name}: expected a language with {split} data ({', '.join(available)}), found "
            f"{language!r}.{did_you_mean(language, available)}{note}"
        )

    def _check_result(self, result: ReadResult, source: str) -> None:
        if not result.num_rows:
            raise DataError(f"{source}: expected rows, found only a header. Add rows or remove the file.")
        failed = result.num_faults and self.on_invalid_row == "error"
        if result.examples and not failed:
            return
        shown = "".join(f"\n  {problem}" for problem in result.shown)
        scope = f" (the first {NUM_SHOWN} of {result.num_faults} faults)" if result.num_faults > NUM_SHOWN else ""
        advice = "Correct them, or set on_invalid_row to 'skip' to leave them out and count them."
        raise DataError(
            f"task {self.name}: expected usable rows in {source}, found {result.num_faulty} faulty among "
            f"{result.num_rows}{scope}:{shown}\n{advice if failed else 'No row is left to use.'}"
        )

    def _check_columns(self) -> None:
        columns = self.text_columns
        if not columns or len(set(columns)) < len(columns) or self.label_column in columns or "" in columns:
            self._refuse("text_columns", f"distinct column names, without the label column; found {list(columns)}")
        if self.cut_column not in columns:
            hint = did_you_mean(self.cut_column, columns)
            self._refuse("cut_column", f"a text column ({', '.join(columns)}), found {self.cut_column!r}", hint)
        used = _placeholders(self.template, f"task {self.name}: template")
        for column in used:
            if column not in columns:
                hint = did_you_mean(column, columns)
                self._refuse("template", f"placeholders for {', '.join(columns)} only, found {{{column}}}", hint)
        for column in columns:
            if used.count(column) != 1:
                self._refuse("template", f"{{{column}}} once, found it {used.count(column)} times")

    def _check_labels(self) -> None:
        words = self.labels
        if self.label_column is None:
            if words:
                self._refuse("label_words", f"none without a label column, found {words}; set label_column")
            return
        if len(words) < 2:
            self._refuse("label_words", f"at least two labels, found {len(words)}")
        if any(not word.strip() or word != word.strip() for word in [*words, *self.label_words]):
            self._refuse("label_words", f"labels and words without surrounding space, found {dict(self.label_words)}")
        repeated = sorted({word for word in words if [w.casefold() for w in words].count(word.casefold()) > 1})
        if repeated:
            self._refuse("label_words", f"a different word for every label, apart from case; found {repeated} twice")

    def _refuse(self, part: str, rest: str, hint: str = "") -> None:
        raise ConfigError(f"task {self.name}: {part}: expected {rest}.{hint}")


def _placeholders(template: str, where: str) -> list[str]:
    """Returns the names in braces.

    Raises:
        ConfigError: If the braces do not match or hold more than a name.
    """
    try:
        pieces = [piece for piece in Formatter().parse(template) if piece[1] is not None]
    except ValueError as error:
        raise ConfigError(f"{where}: expected names in braces, found {template!r}: {error}.") from error
    for _, name, spec, conversion in pieces:
        if not name or spec or conversion or name.isdecimal() or any(mark in name for mark in ".["):
            raise ConfigError(f"{where}: expected plain names in braces, found {template!r}.")
    return [name for _, name, _, _ in pieces if name]
