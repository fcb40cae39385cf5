"""Code-switched views of a run's English rows: for the training of the fusion, and for the probe."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from contextlib import ExitStack

from glotfuse import distributed
from glotfuse.backbones import cache_dir
from glotfuse.code_switching import SwitchingReader, english_words, part_of
from glotfuse.config import Recipe
from glotfuse.errors import ConfigError
from glotfuse.inputs import InputReader, PreparedExample, prepare
from glotfuse.lexicon import LEXICONS, Lexicon, Progress, read_lexicon, read_vocabulary
from glotfuse.model import FusedLM
from glotfuse.probe_training import ProbeRows
from glotfuse.progress import Bar, console
from glotfuse.run_data import RunRows, label_of, prepare_rows
from glotfuse.tasks import Example, Task
from glotfuse.training import DevExamples

_MIN_COVERAGE = 0.1
_MOST_PROBE_ROWS, _MOST_PROBE_DEV_ROWS = 20_000, 1_000
"""With their views; more would take long and hardly change the probe."""
_PASSES_SEED, _PROBE_SEED, _DEV_SEED = 1, 2, 3


class Views:
    """Readers of a run's English rows in code-switched views.

    Args:
        model: Whose encoder has the vocabulary.
        recipe: The run's.
        rows: English rows whose words are translated.

    Raises:
        ConfigError: The encoder's vocabulary gives no translations.
    """

    def __init__(self, model: FusedLM, recipe: Recipe, rows: Sequence[Example]):
        self._model, self._recipe = model, recipe
        texts = [row.fields[column] for row in rows for column in model.reader.columns]
        lexicon = lexicon_for(model, english_words(texts))
        self._lexicons = {held_out: part_of(lexicon, held_out=held_out) for held_out in (False, True)}

    def reader(self, views: float, *seeds: int, held_out: bool = False) -> InputReader:
        """Reads views of a share of the rows; the same seeds give the same views.

        Args:
            views: The share.
            *seeds: Beside that of the run.
            held_out: With foreign words that no training text has, for development rows.
        """
        share = self._recipe.augmentation.switched_words
        seed = "/".join(str(number) for number in (self._recipe.training.seed, *seeds))
        return SwitchingReader(self._model.reader, self._lexicons[held_out], views=views, share=share, seed=seed)

    def passes(self, task: Task, rows: Sequence[Example]) -> list[PreparedExample]:
        """The training examples of all epochs, one after another, each with views of its own.

        As many as the rows have, times the epochs, rounded up.
        """
        share, count = self._recipe.augmentation.code_switching, math.ceil(self._recipe.training.epochs) or 1
        readers = [self.reader(share, _PASSES_SEED, number) for number in range(count)]
        return [example for r in readers for example in prepare_rows(self._model, task, self._recipe, rows, r)]

    def development(self, task: Task, rows: Sequence[Example]) -> list[PreparedExample]:
        """Development examples of text without labels: the rows and a view of each.

        A copy of spelling alone would do well on the rows, which are English.
        """
        readers = [self._model.reader, self.reader(1.0, _DEV_SEED, held_out=True)]
        return [example for r in readers for example in prepare_rows(self._model, task, self._recipe, rows, r)]


def wants_views(recipe: Recipe) -> bool:
    """Whether a run reads code-switched views."""
    return recipe.augmentation.code_switching > 0 and recipe.prompt.include_span


def prepare_examples(
    model: FusedLM, task: Task, recipe: Recipe, rows: RunRows, views: Views | None
) -> tuple[list[PreparedExample], DevExamples]:
    """Training examples, of all epochs where they have views, and development examples, if any."""
    train = views.passes(task, rows.train) if views else prepare_rows(model, task, recipe, rows.train)
    if rows.dev and views and not task.labels:
        dev = views.development(task, rows.dev)
    else:
        dev = prepare_rows(model, task, recipe, rows.dev) if rows.dev else []
    return train, DevExamples(dev, [label_of(row) for row in rows.dev] if task.labels else [])


def probe_rows(
    model: FusedLM, task: Task, recipe: Recipe, rows: Sequence[Example], views: Views | None, *, dev: bool
) -> ProbeRows:
    """Rows for the probe, followed by views of all of them; a random sample, where they are many.

    Args:
        model: Whose reader they are for.
        task: Theirs.
        recipe: The run's.
        rows: English rows with labels.
        views: Makes the views; None takes the rows alone.
        dev: Whether they are development rows, whose views are others.
    """
    readers = [model.reader]
    if views is not None:
        seed = _DEV_SEED if dev else _PROBE_SEED
        readers += [views.reader(1.0, seed, number, held_out=dev) for number in range(recipe.probe.views)]
    most = (_MOST_PROBE_DEV_ROWS if dev else _MOST_PROBE_ROWS) // len(readers)
    rows = random.Random(recipe.training.seed).sample(rows, most) if len(rows) > most else rows
    fields = [row.fields for row in rows]
    language = task.train_language
    found = [e for reader in readers for e in prepare(reader, model.prompt, fields, language=language, columns=True)]
    return ProbeRows(found, [label_of(row) for row in rows] * len(readers), len(found) - len(rows))


def lexicon_for(model: FusedLM, english: Sequence[str]) -> Lexicon:
    """Translations of English words out of the encoder's vocabulary.

    Raises:
        ConfigError: There are hardly any.
    """
    folder = cache_dir() / LEXICONS

    def read() -> Lexicon:
        with ExitStack() as stack:  # a bar if there is something to encode

            def shown(total: int) -> Progress:
                return stack.enter_context(Bar("vocabulary", total, "words")).advance

            vocabulary = read_vocabulary(model.encoder, folder, shown)
        return read_lexicon(model.encoder, vocabulary, english, folder)

    lexicon = distributed.once(read)
    if lexicon.coverage < _MIN_COVERAGE or not lexicon.translations.keys() - {"LATIN"}:
        raise ConfigError(
            f"Expected translations of at least {_MIN_COVERAGE:.0%} of the English words in the vocabulary of "
            f"{model.encoder.identity.name}, some in another script; found {lexicon.coverage:.1%}, in "
            f"{', '.join(lexicon.translations) or 'no script'}. Set augmentation.code_switching to 0: this encoder "
            "does not place words of different languages near each other."
        )
    console.print(
        f"Code-switching: {lexicon.coverage:.0%} of the English words have translations, in "
        f"{len(lexicon.translations)} scripts.",
        highlight=False,
    )
    return lexicon
