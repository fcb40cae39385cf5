"""Results of an evaluation by language: JSON, Markdown, terminal table, and runs side by side.

Scores are fractions (0 to 1) in the objects and in JSON, and percent with one decimal in tables. Averages are
unweighted over languages.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from glotfuse.errors import DataError
from glotfuse.evaluation.metrics import Average, LanguageResult, average_over, language_result
from glotfuse.evaluation.unknown_tokens import unknown_warning
from glotfuse.files import write_files
from glotfuse.languages.names import GROUPS, is_low_resource, name_of, resource_class_of

if TYPE_CHECKING:
    from rich.table import Table

__all__ = [
    "Average",
    "EvaluationReport",
    "LanguageResult",
    "ResultTable",
    "comparison_table",
    "language_result",
]

FORMAT = 1
"""Version of the JSON layout."""

_AGAIN = "Evaluate the run again to write it afresh."
_NONE = "–"
_ROOMY = 7
"""Most columns that have two blanks between them in a terminal; more have one."""


@dataclass(frozen=True)
class ResultTable:
    """A table of languages that prints as Markdown or in a terminal.

    Attributes:
        title: Heading.
        columns: Column names: language, code, then numbers.
        rows: One row of cells per language.
        averages: One row of cells per average.
        notes: Sentences below the table.
        stacked: In a terminal, put an interval on a line of its own, below its value.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    averages: Sequence[Sequence[str]]
    notes: Sequence[str]
    stacked: bool = False

    def to_markdown(self) -> str:
        """Returns the table and its notes, without the title."""
        rule = ["---", "---"] + ["---:"] * (len(self.columns) - 2)
        averages = [(f"**{first}**", *rest) for first, *rest in self.averages]
        table = [self.columns, rule, *self.rows, *averages]
        lines = ["| " + " | ".join(map(_escaped, row)) + " |" for row in table]
        return "\n".join(lines) + "\n" + "".join(f"\n{note}\n" for note in self.notes)

    def rich_table(self) -> Table:
        """Returns a `rich` table without the code column, so that numbers fit 80 characters unbroken."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(title=Text(self.title), caption=Text("\n".join(self.notes)), caption_justify="left")
        table.box, table.padding = box.SIMPLE_HEAD, (0, int(len(self.columns) <= _ROOMY), 0, 0)
        table.show_edge = table.pad_edge = False
        table.add_column(self.columns[0], overflow="fold", min_width=9)
        rows = [[cell.replace(" [", "\n[") if self.stacked else cell for cell in row] for row in self.rows]
        for index, column in enumerate(self.columns[2:], start=2):
            width = max((len(line) for row in rows for line in row[index].splitlines()), default=0)
            breakable = column.replace("_", "_ ")  # a name is broken after its underscores
            longest = max(map(len, breakable.split()), default=1)
            header = Text("\n".join(textwrap.wrap(breakable, max(width, min(longest, 11)))).replace("_ ", "_"))
            table.add_column(header, justify="right", no_wrap=True)
        for row in rows:
            table.add_row(*map(Text, (row[0], *row[2:])))
        table.add_section()
        for average in self.averages:
            table.add_row(*map(Text, (average[0], *average[2:])))
        return table


@dataclass(frozen=True)
class EvaluationReport:
    """All results of one evaluation run.

    Attributes:
        run_name: Name of the run.
        task: Name of the task.
        split: Split that was scored, such as `test`.
        mixer: Description of the mixer; JSON values only.
        labels: (K,) label names, in the order of their numbers.
        results: One result per language, in the order of the table.
        missing_languages: Languages that were asked for and had no data.
        metadata: Anything else worth keeping (backbones, versions, time); JSON values only.
    """

    run_name: str
    task: str
    split: str
    mixer: Mapping[str, object]
    labels: tuple[str, ...]
    results: tuple[LanguageResult, ...]
    missing_languages: tuple[str, ...] = ()
    metadata: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        codes = [result.language for result in self.results]
        repeated = sorted({code for code in codes if codes.count(code) > 1})
        if repeated:
            raise DataError(f"Expected one result per language, found more for {repeated}. Score each once.")
        size = len(self.labels)
        for result in self.results:
            widths = [len(row) for row in result.confusion]
            if widths != [size + 1] * size:
                expected = f"expected confusion of {size} rows of {size + 1} counts, found rows of {widths}"
                raise DataError(f"Language {result.language!r}, {size} labels: {expected}. {_AGAIN}")

    @property
    def averages(self) -> dict[str, Average]:
        """Averages by group: `all`, `all_but_english` and `low_resource`."""
        return {group: average_over(self.results, group) for group in GROUPS}

    def to_dict(self) -> dict[str, object]:
        """Returns the report as JSON values; averages and language names are added for other readers."""
        data = asdict(self)
        for result in data["results"]:
            result["name"] = name_of(result["language"])
        averages = {group: asdict(average) for group, average in self.averages.items()}
        return {"format": FORMAT, **data, "averages": averages}

    @classmethod
    def from_dict(cls, data: object) -> EvaluationReport:
        """Rebuilds a report from the values of `to_dict`; names and averages are computed afresh.

        Raises:
            DataError: The data is no report, incomplete, or of another format.
        """
        from pydantic import TypeAdapter, ValidationError

        if not isinstance(data, dict) or data.get("format") != FORMAT:
            found = f"format {data.get('format')!r}" if isinstance(data, dict) else type(data).__name__
            raise DataError(f"Expected an evaluation report of format {FORMAT}, found {found}. {_AGAIN}")
        try:
            return TypeAdapter(cls).validate_python(data)
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5])
            raise DataError(f"Expected a whole evaluation report, found {problems}. {_AGAIN}") from error

    def save(self, folder: str | Path, stem: str) -> tuple[Path, Path]:
        """Writes `<stem>.json` and `<stem>.md`, whole or not at all.

        Returns:
            The paths of the JSON and the Markdown file.

        Raises:
            DataError: `mixer` or `metadata` holds something that JSON cannot.
            CheckpointError: The files cannot be written.
        """
        try:
            text = json.dumps(self.to_dict(), ensure_ascii=False, indent=2, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise DataError(f"Expected mixer and metadata to be JSON values, found: {error}.") from error
        paths = Path(folder, f"{stem}.json"), Path(folder, f"{stem}.md")
        write_files(
            Path(folder), {paths[0].name: f"{text}\n".encode(), paths[1].name: self.to_markdown().encode("utf8")}
        )
        return paths

    @classmethod
    def load(cls, path: str | Path) -> EvaluationReport:
        """Reads a JSON file that `save` wrote.

        Raises:
            DataError: The file is missing, damaged or no report.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"Expected an evaluation report in {path}, found: {error}. {_AGAIN}") from error
        try:
            return cls.from_dict(data)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error

    def table(self) -> ResultTable:
        """Returns the languages and averages as a table."""
        rows = []
        for r in self.results:
            scores, counts = (r.accuracy.percent(), r.macro_f1.percent()), (r.num_truncated, r.num_invalid)
            cells = [str(r.num_examples), *scores, *map(str, counts), _percent(r.unknown_rate)]
            rows.append([name_of(r.language), r.language, *cells])
        averages = [
            [_average_name(group, a), "", "", _percent(a.accuracy), _percent(a.macro_f1), "", "", ""]
            for group, a in self.averages.items()
        ]
        codes = [result.language for result in self.results]
        notes = _notes(codes, "accuracy: Wilson; macro-F1: bootstrap over examples")
        if self.missing_languages:
            notes.append(f"No data for: {_named(self.missing_languages)}.")
        if any(result.unknown_rate is not None for result in self.results):
            notes.append("Unknown: tokens that the encoder's vocabulary lacks, of all that it read.")
        columns = ["Language", "Code", "n", "Accuracy %", "Macro-F1 %", "Cut", "Invalid", "Unknown %"]
        return ResultTable(f"{self.run_name}: {self.task}, {self.split}", columns, rows, averages, notes)

    def to_markdown(self) -> str:
        """Returns a page: what was run, the languages, the averages."""
        facts = {"Task": self.task, "Split": self.split, "Labels": ", ".join(self.labels)}
        mixer = ", ".join(f"{key}: {value}" for key, value in self.mixer.items())
        lines = [f"- {key}: {value}" for key, value in {**facts, "Mixer": mixer, **self.metadata}.items()]
        warning = unknown_warning(self.results)
        table = [self.table().to_markdown(), *([warning, ""] if warning else [])]
        return "\n".join([f"# Evaluation of {self.run_name}\n", *lines, "", *table])

    def rich_table(self) -> Table:
        """Returns the table for a `rich` console; it fits 80 characters."""
        return self.table().rich_table()


def comparison_table(reports: Sequence[EvaluationReport], names: Sequence[str] | None = None) -> ResultTable:
    """Puts the accuracies of runs side by side; of two runs, also second minus first in percentage points.

    Averages are over the languages that all runs have. Four runs fit a terminal of 80 characters.

    Args:
        reports: Runs on one task and split.
        names: One column name per run; `None` takes the run names.

    Raises:
        DataError: No runs, different tasks or splits, or names that do not tell the runs apart.
    """
    names = [report.run_name for report in reports] if names is None else list(names)
    scored_on = sorted({f"{report.task}, {report.split}" for report in reports})
    if len(scored_on) != 1:
        raise DataError(f"Expected runs on one task and split, found {scored_on}. Compare runs of one task.")
    if len(names) != len(reports) or len(set(names)) < len(names):
        raise DataError(f"Expected {len(reports)} different run names, found {names}. Give one name per run.")
    runs = [{result.language: result for result in report.results} for report in reports]
    codes = list(dict.fromkeys(code for run in runs for code in run))
    shared = [code for code in codes if all(code in run for run in runs)]
    rows = []
    for code in codes:
        found = [run[code].accuracy if code in run else None for run in runs]
        cells = [interval.percent() if interval else _NONE for interval in found]
        rows.append([name_of(code), code, *cells, *_difference([i.value if i else None for i in found])])
    averages = []
    for group in GROUPS:
        means = [average_over([run[code] for code in shared], group) for run in runs]
        values = [mean.accuracy for mean in means]
        averages.append([_average_name(group, means[0]), "", *map(_percent, values), *_difference(values)])
    notes = _notes(codes, "Wilson")
    if len(shared) < len(codes):
        notes.append(f"Averages are over the {len(shared)} languages that all runs have.")
    unequal = [code for code in shared if len({run[code].num_examples for run in runs}) > 1]
    if unequal:
        notes.append(f"Scored on different numbers of examples: {_named(unequal)}.")
    columns = ["Language", "Code", *names, *(["Difference"] if len(names) == 2 else [])]
    return ResultTable(f"Accuracy %: {scored_on[0]}", columns, rows, averages, notes, stacked=len(names) > 2)


def _difference(values: Sequence[float | None]) -> list[str]:
    """Returns the cell of the difference column, which only two runs have."""
    first, second = values[0], values[-1]
    if len(values) != 2 or first is None or second is None:
        return [_NONE] if len(values) == 2 else []
    return [f"{round((second - first) * 100, 1) + 0.0:+.1f}"]  # adding 0.0 turns -0.0 into 0.0


def _notes(codes: Sequence[str], interval: str) -> list[str]:
    low_resource = _named(code for code in codes if is_low_resource(code)) or "none of these languages"
    unclassified = _named(code for code in codes if resource_class_of(code) is None)
    without = f" Without a class and not counted there: {unclassified}." if unclassified else ""
    return [
        f"In brackets: 95% confidence intervals ({interval}).",
        f"Low-resource, by classes 0 to 2 of Joshi et al. (2020): {low_resource}.{without}",
    ]


def _average_name(group: str, average: Average) -> str:
    return f"Average, {GROUPS[group][0]} ({average.num_languages})"


def _named(codes: Iterable[str]) -> str:
    return ", ".join(f"{name_of(code)} ({code})" for code in codes)


def _percent(value: float | None) -> str:
    return _NONE if value is None else f"{value * 100:.1f}"


def _escaped(cell: str) -> str:
    return cell.replace("|", r"\|").replace("\n", " ")
