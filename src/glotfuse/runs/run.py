"""A run while it is trained: its rows as examples of its model, in views where the recipe asks for them.

Shapes: N rows.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from glotfuse.api import FusedLM
from glotfuse.inputs.batch import PreparedExample, prepare
from glotfuse.inputs.prompts import Prompt
from glotfuse.inputs.reader import InputReader
from glotfuse.progress import console
from glotfuse.recipes.config import Recipe
from glotfuse.runs.data import RunRows, label_of
from glotfuse.runs.views import Purpose, Views
from glotfuse.tasks import Example, Task
from glotfuse.training.code_switching import SwitchedExamples
from glotfuse.training.development import DevExamples
from glotfuse.training.objectives import OBJECTIVES, Documents, TextObjective
from glotfuse.training.probe_fitting import ProbeRows

_MOST_PROBE_ROWS, _MOST_PROBE_DEV_ROWS = 20_000, 1_000
"""With their views; more would take long and hardly change the probe."""


@dataclass(frozen=True)
class Run:
    """What the steps of a run share."""

    recipe: Recipe
    folder: Path
    task: Task
    rows: RunRows
    model: FusedLM

    @cached_property
    def views(self) -> Views | None:
        """Makes code-switched views; None where the recipe wants none.

        Raises:
            ConfigError: The encoder's vocabulary gives no translations.
        """
        if not self.recipe.wants_views:
            return None
        return Views(self.model, self.recipe, [*self.rows.train, *self.rows.dev])

    @cached_property
    def train(self) -> Sequence[PreparedExample]:
        """Training examples with their answers; with views they are others in every epoch."""
        documents = self._prepare(self.rows.train)
        if self.views is None:
            return documents.examples
        return self._switched(documents, Purpose.TRAINING, self.recipe.augmentation.code_switching)

    @cached_property
    def dev(self) -> DevExamples:
        """What chooses the checkpoint; of text without labels the rows and, where there are views, one of each.

        A copy of spelling alone would do well on the rows, which are English.
        """
        documents = self._prepare(self.rows.dev) if self.rows.dev else Documents([], [], 0)
        found = list(documents.examples)
        if self.views is not None and not self.task.labels:
            found += self._switched(documents, Purpose.DEVELOPMENT, 1.0)[:]
        return DevExamples(found, [label_of(row) for row in self.rows.dev] if self.task.labels else [])

    @property
    def num_truncated(self) -> int:
        """Training texts that were cut, views apart."""
        plain = self.train.plain if isinstance(self.train, SwitchedExamples) else self.train
        return sum(example.truncated for example in plain)

    def _switched(self, documents: Documents, purpose: Purpose, share: float) -> SwitchedExamples:
        assert self.views is not None
        objective = objective_of(self.task, self.recipe)
        return SwitchedExamples(
            documents.examples,
            documents.fields,
            self.model.reader,
            self.views.drawn(purpose, share),
            whole=objective is not None and objective.whole,
            language=self.task.train_language,
            split=self.views.split(purpose),
        )

    def _prepare(self, rows: Sequence[Example]) -> Documents:
        """Token ids of training or development rows with their answers, and a line on what was cut or left out."""
        model, objective = self.model, objective_of(self.task, self.recipe)
        found = prepare_rows(self.task, self.recipe, rows, model.reader, model.prompt, model.prompt_for)
        if objective is not None and found.num_left_out:
            left_out = f"{found.num_left_out} of {len(rows)} documents are {objective.left_out}."
            console.print(left_out, style="yellow")
        num_cut = sum(example.truncated for example in found.examples)
        if num_cut:
            console.print(
                f"{num_cut} of {len(rows)} texts were cut to {model.reader.max_length} tokens.", style="yellow"
            )
        return found

    def probe_rows(self, rows: Sequence[Example], purpose: Purpose) -> ProbeRows:
        """Rows for the probe, followed by views of all of them; a random sample, where they are many.

        Args:
            rows: N English rows with labels.
            purpose: Development rows have other views than those that the probe learns from.
        """
        num_views = self.recipe.probe.views if self.views is not None else 0
        most = (_MOST_PROBE_DEV_ROWS if purpose.held_out else _MOST_PROBE_ROWS) // (1 + num_views)
        rows = random.Random(self.recipe.training.seed).sample(rows, most) if len(rows) > most else rows
        seen = [row.fields for row in rows]
        if self.views is not None:
            draw = self.views.drawn(purpose, 1.0)
            seen += [draw(row.fields, number, index) for number in range(num_views) for index, row in enumerate(rows)]
        found = prepare(self.model.reader, self.model.prompt, seen, language=self.task.train_language, columns=True)
        return ProbeRows(found, [label_of(row) for row in rows] * (1 + num_views), len(found) - len(rows))


def objective_of(task: Task, recipe: Recipe) -> TextObjective | None:
    """What is learned of text without labels; None for a task with labels."""
    return OBJECTIVES[recipe.objective or "continuation"] if task.label_column is None else None


def prepare_rows(
    task: Task,
    recipe: Recipe,
    rows: Sequence[Example],
    reader: InputReader,
    prompt: Prompt,
    prompt_for: Callable[[str], Prompt],
) -> Documents:
    """Token ids of rows with their answers; unlabelled text as the objective has it.

    Args:
        task: The run's.
        recipe: The run's.
        rows: Training or development rows.
        reader: What the encoder reads of them.
        prompt: The run's.
        prompt_for: From an instruction to the prompt around it, for rows with instructions of their own.

    Raises:
        DataError: The objective can use none of the rows.
    """
    config, objective = recipe.training, objective_of(task, recipe)
    if objective is None:
        fields, answers = [row.fields for row in rows], [label_of(row) for row in rows]
        return Documents(prepare(reader, prompt, fields, answers=answers, language=task.train_language), fields, 0)
    texts = [row.fields[task.cut_column] for row in rows]
    settings: dict[str, Any] = {"cut": config.cut, "max_answer_tokens": config.max_answer_tokens, "seed": config.seed}
    if objective.columns:
        asked = [tuple(row.fields[column] for column in objective.columns) for row in rows]
        settings |= {"asked": asked, "prompt_for": prompt_for}
    return objective.prepare(reader, prompt, texts, **settings)
