"""What a stage of a recipe reads, where data and tokenizers are on this disk: rows, lengths, cuts, label words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

from glotfuse.backbones import Encoder
from glotfuse.errors import DataError, GlotfuseError
from glotfuse.inputs.batch import PreparedExample, prepare
from glotfuse.inputs.prompts import Prompt, build_prompt
from glotfuse.inputs.reader import InputReader
from glotfuse.model.assembly import prompt_of
from glotfuse.model.label_tree import LabelTree
from glotfuse.recipes.config import Recipe
from glotfuse.runs.data import RunRows, as_text, load_rows, task_of
from glotfuse.runs.planned_memory import Lengths
from glotfuse.runs.planned_models import PlannedModel
from glotfuse.runs.run import prepare_rows
from glotfuse.tasks import Example, Task

_MOST_READ = 4000
"""Rows whose tokens are counted; of larger data evenly spread ones stand for all."""
_CHAT_HEAD, _ANSWER = 60, 4
"""Tokens that are assumed of a chat prompt's head and of a label word, without the LM's tokenizer."""


@dataclass
class PlannedData:
    """What a stage reads."""

    lengths: Lengths
    num_train: int | None = None
    """Examples per epoch; None where they are not known."""
    num_dev: int = 0
    exact: bool = False
    """Whether the data was read; otherwise the number is the most that the recipe takes."""
    num_tokens: int | None = None
    """Encoder tokens of training and development texts, after cutting."""
    num_cut: int | None = None
    """Training texts that are cut."""
    num_left_out: int = 0
    """Training documents that the objective cannot use."""
    sampled: bool = False
    """Whether tokens were counted of a sample and scaled up."""
    label_tokens: dict[str, int] = field(default_factory=dict)
    """LM tokens of each label word."""
    remarks: list[str] = field(default_factory=list)
    """What was not read, and what training would refuse."""


def plan_data(recipe: Recipe, encoder: PlannedModel, lm: PlannedModel | None, *, read: bool = True) -> PlannedData:
    """Reads what a stage will read.

    Args:
        recipe: The stage's.
        encoder: Its encoder.
        lm: Its LM; None without one.
        read: Whether the rows may be read; of a task on the hub that may fetch its data.
    """
    found = PlannedData(_assumed(recipe))
    _check_length(recipe, encoder, found)
    try:
        task = task_of(recipe.task)
    except GlotfuseError as error:
        return _unread(recipe, found, error)
    rows = None
    try:
        if not read:
            raise DataError("Left out by --no-data.")
        rows = load_rows(task, recipe)
        if recipe.objective:
            task, rows = as_text(task, rows, recipe.objective)
        found.exact, found.num_train, found.num_dev = True, len(rows.train), len(rows.dev)
    except GlotfuseError as error:
        _unread(recipe, found, error)
    prompt = _plan_prompt(recipe, task, lm, found)
    if rows is not None and rows.train:
        _count(recipe, task, rows, encoder, lm, prompt, found)
    return found


def _assumed(recipe: Recipe) -> Lengths:
    """The longest that the recipe allows."""
    plain = recipe.prompt.include_text or not recipe.prompt.include_span
    unlabelled = recipe.objective is not None or (recipe.task.name == "files" and recipe.task.label_column is None)
    return Lengths(
        encoder=recipe.encoder.max_length,
        text=recipe.prompt.max_text_tokens if plain else 0,
        head=_CHAT_HEAD if recipe.prompt.style == "chat" else 1,
        answer=recipe.training.max_answer_tokens + 1 if unlabelled else _ANSWER,
        label_nodes=0 if unlabelled else 1,
    )


def _unread(recipe: Recipe, found: PlannedData, error: GlotfuseError) -> PlannedData:
    """Says that the data was not read; the recipe's own limits then stand for its size."""
    limits = recipe.task
    found.num_train, found.num_dev = limits.max_train_examples, limits.max_dev_examples or 0
    advice = "Name a folder with it: --set task.path=FOLDER."
    if str(error).startswith("Left out"):
        advice = ""
    found.remarks.append(f"Data of {limits.name} not read: {_first_sentence(error)} {advice}".strip())
    return found


def _check_length(recipe: Recipe, encoder: PlannedModel, found: PlannedData) -> None:
    most = encoder.max_length
    for key, wanted in (
        ("encoder.max_length", recipe.encoder.max_length),
        ("evaluation.max_length", recipe.evaluation.max_length),
    ):
        if most is not None and wanted is not None and wanted > most:
            found.remarks.append(f"Training would refuse {key} {wanted}: {encoder.name} takes at most {most}.")


def _plan_prompt(recipe: Recipe, task: Task, lm: PlannedModel | None, found: PlannedData) -> Prompt | None:
    """The prompt with its lengths and label words; None without the LM's tokenizer."""
    if lm is None:
        return None
    if lm.tokenizer is None:
        found.remarks.append(f"Prompt and label words not counted: the tokenizer of {lm.name} is not on this disk.")
        return None
    labels = [] if recipe.objective else task.labels
    try:
        prompt = prompt_of(recipe.prompt, lm.tokenizer, task.instruction, labels)
        ids = prompt.label_ids(labels)
    except GlotfuseError as error:
        found.remarks.append(f"Training would stop at the prompt: {error}")
        return None
    found.label_tokens = {word: len(prompt.answer_ids(word)) for word in labels}
    answer = max((len(each) for each in ids), default=0) + len(prompt.end_ids) if labels else found.lengths.answer
    found.lengths = replace(
        found.lengths,
        head=len(prompt.head_ids),
        tail=len(prompt.tail_ids),
        answer=answer,
        label_nodes=len(LabelTree.build(ids).token_ids) + 1 if labels else 0,
    )
    return prompt


def _count(
    recipe: Recipe,
    task: Task,
    rows: RunRows,
    encoder: PlannedModel,
    lm: PlannedModel | None,
    prompt: Prompt | None,
    found: PlannedData,
) -> None:
    """Counts tokens and cuts, as training would have them."""
    if encoder.tokenizer is None:
        found.remarks.append(f"Lengths not counted: the tokenizer of {encoder.name} is not on this disk.")
        return
    unlabelled = task.label_column is None
    if prompt is None and (unlabelled or not recipe.prompt.include_span):
        return
    prefix = recipe.encoder.prefix
    stand_in = SimpleNamespace(
        tokenize=lambda texts, _=None: encoder.tokenize(list(texts), prefix),
        max_length=encoder.max_length,
        identity=SimpleNamespace(name=encoder.name),
    )

    def ready(part: Sequence[Example]) -> tuple[list[PreparedExample], int]:
        if prompt is None:  # the encoder's side alone
            plain = Prompt(None, (), "", ())
            return prepare(reader, plain, [row.fields for row in part]), 0
        documents = prepare_rows(task, recipe, part, reader, prompt, prompt_for)
        return documents.examples, documents.num_left_out

    def prompt_for(instruction: str) -> Prompt:
        assert lm is not None
        return build_prompt(lm.tokenizer, style=recipe.prompt.style, instruction=instruction, tail=recipe.prompt.tail)

    try:
        reader = InputReader(
            cast(Encoder, stand_in),
            template=task.template,
            cut_column=task.cut_column,
            max_length=recipe.encoder.max_length,
            max_text_tokens=recipe.prompt.max_text_tokens,
        )
        train = _spread(rows.train)
        examples, left_out = ready(train)
        dev = _spread(rows.dev)
        others = ready(dev)[0] if dev else []
    except GlotfuseError as error:
        found.remarks.append(f"Training would stop at the data: {error}")
        return
    _enter(found, rows, train, examples, left_out, dev, others)
    if recipe.wants_views:  # words of other languages have more tokens
        found.lengths = replace(found.lengths, encoder=recipe.encoder.max_length)


def _enter(
    found: PlannedData,
    rows: RunRows,
    train: Sequence[Any],
    examples: Sequence[PreparedExample],
    left_out: int,
    dev: Sequence[Any],
    others: Sequence[PreparedExample],
) -> None:
    """Enters what was counted, scaled up from a sample."""
    scale = len(rows.train) / len(train)
    found.sampled = scale > 1
    found.num_left_out = round(left_out * scale)
    found.num_train, found.num_dev = len(rows.train) - found.num_left_out, len(rows.dev)
    found.num_cut = round(sum(example.truncated for example in examples) * scale)
    tokens = sum(len(example.encoder_ids) for example in examples) * scale
    if dev:
        tokens += sum(len(example.encoder_ids) for example in others) * len(rows.dev) / len(dev)
    found.num_tokens = round(tokens)
    everything = [*examples, *others]
    longest = found.lengths
    found.lengths = replace(
        longest,
        encoder=max(len(example.encoder_ids) for example in everything),
        text=max(len(example.text_ids) for example in everything),
        head=max([longest.head, *(len(example.head_ids) for example in everything)]),
        answer=max(len(example.answer_ids) for example in everything) or longest.answer,
    )


def _spread(rows: Sequence[Example]) -> list[Example]:
    """At most so many rows, from all over the data, which may be sorted."""
    every = -(-len(rows) // _MOST_READ) or 1
    return list(rows[::every])


def _first_sentence(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0] if len(lines[0]) <= 160 else lines[0][:157] + "..."
