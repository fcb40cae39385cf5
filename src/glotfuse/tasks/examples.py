"""What a task hands out: examples, the report of one load, and a balanced sample."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from glotfuse.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Example:
    """One text, or one group of texts such as premise and hypothesis, with its answer.

    Attributes:
        fields: The text of each text column, by column name.
        label: The label word (after the label map), or None in unlabelled text.
        language: Language code, for example `sin_Sinh`.
        source: The file, or hub data set, it was read from.
        row: Line of a text file or row of a Parquet file, counted from 1; index in a hub split, from 0.
    """

    fields: Mapping[str, str]
    label: str | None
    language: str
    source: str
    row: int


@dataclass(frozen=True)
class LoadReport:
    """What one load read, kept and left out: `rows` is `kept` plus `dropped`.

    Attributes:
        source: The file, or hub data set, that was read.
        split: train, dev or test.
        language: Language code.
        rows: Rows found.
        kept: Rows that became examples.
        empty: Rows left out because a text is empty.
        unknown_label: Rows left out because their label is not among the task's.
        missing_label: Rows left out because they have no label.
        malformed: Rows left out for their form: number of cells, encoding, invalid JSON, not a text.
        duplicates: Kept rows whose texts and label all occurred earlier in the same load.
        problems: The first ten faults, in words.
        warnings: What is odd about the split as a whole, though no row is at fault.
    """

    source: str
    split: str
    language: str
    rows: int
    kept: int
    empty: int = 0
    unknown_label: int = 0
    missing_label: int = 0
    malformed: int = 0
    duplicates: int = 0
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def dropped(self) -> int:
        """Number of rows that did not become examples."""
        return self.empty + self.unknown_label + self.missing_label + self.malformed

    def summary(self) -> str:
        """Returns one line for a log or table, naming only the counts that are not zero."""
        counts = {
            "empty": self.empty,
            "unknown label": self.unknown_label,
            "no label": self.missing_label,
            "malformed": self.malformed,
            "duplicates (kept)": self.duplicates,
        }
        notes = "".join(f", {number} {what}" for what, number in counts.items() if number)
        return f"{self.language} {self.split}: {self.kept} of {self.rows} rows{notes}"


@dataclass(frozen=True)
class Split:
    """The examples of one split in one language, and how they were obtained."""

    examples: list[Example]
    report: LoadReport

    def __len__(self) -> int:
        return len(self.examples)

    def __iter__(self) -> Iterator[Example]:
        return iter(self.examples)


def sample(examples: Sequence[Example], n: int, seed: int) -> list[Example]:
    """Draws `n` examples, as many of each label as possible, in shuffled order.

    Labels take turns until `n` examples are drawn; a label that runs out leaves its turns to the others.
    The same examples, `n` and `seed` give the same list. Data files may be sorted by label (SIB-200's test
    files are), so that their first `n` rows would miss labels.

    Args:
        examples: Labelled or unlabelled examples.
        n: How many to draw; with `n` at or above their number all come back, shuffled.
        seed: Seed of the draw and of the order.

    Raises:
        ConfigError: If `n` is below 1.
    """
    if n < 1:
        raise ConfigError(f"sample size: expected at least 1, found {n}. Leave it unset to use every example.")
    random_source = random.Random(seed)
    groups: dict[str, list[Example]] = {}
    for example in examples:
        groups.setdefault(example.label or "", []).append(example)
    queues = [groups[label] for label in sorted(groups)]
    for queue in queues:
        random_source.shuffle(queue)
    random_source.shuffle(queues)  # or the odd examples of an uneven n would always go to the same labels
    chosen: list[Example] = []
    while queues and len(chosen) < n:
        for queue in queues[: n - len(chosen)]:
            chosen.append(queue.pop())
        queues = [queue for queue in queues if queue]
    random_source.shuffle(chosen)
    return chosen
