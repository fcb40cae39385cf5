"""Code-switched views of a run's English rows: for the training of the fusion, and for the probe."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from enum import IntEnum

from glotfuse import distributed
from glotfuse.errors import ConfigError
from glotfuse.files import cache_dir
from glotfuse.model.fused_model import FusedModel
from glotfuse.progress import Bar, console
from glotfuse.recipes.config import Recipe
from glotfuse.tasks import Example
from glotfuse.training.code_switching import Switcher, ViewSettings, english_words, part_of
from glotfuse.training.lexicon import LEXICONS, Lexicon, Progress, described, read_lexicon, read_vocabulary
from glotfuse.training.resegmentation import Splitter

_MIN_COVERAGE = 0.1


class Purpose(IntEnum):
    """What views are for: each has others."""

    TRAINING = 1
    PROBE = 2
    DEVELOPMENT = 3

    @property
    def held_out(self) -> bool:
        """Whether they have foreign words that no training text has."""
        return self is Purpose.DEVELOPMENT


class Views:
    """Draws code-switched views of a run's English rows.

    Args:
        model: Whose encoder has the vocabulary.
        recipe: The run's.
        rows: English rows whose words are translated.

    Raises:
        ConfigError: The encoder's vocabulary gives no translations.
    """

    def __init__(self, model: FusedModel, recipe: Recipe, rows: Sequence[Example]):
        columns = model.reader.columns
        lexicon = lexicon_for(model, english_words([row.fields[column] for row in rows for column in columns]))
        wanted = recipe.augmentation
        settings = ViewSettings(wanted.switched_words, wanted.whole_views, wanted.reordered, wanted.split_tokens)
        self._settings, self._seed = settings, recipe.training.seed
        self._splitter = Splitter(model.encoder.tokenizer, model.encoder.prefix) if settings.split else None
        self._switchers = {
            held_out: Switcher(part_of(lexicon, held_out=held_out), columns, settings=settings, seed=self._seed)
            for held_out in (False, True)
        }

    def drawn(self, purpose: Purpose, share: float) -> Callable[[Mapping[str, str], int, int], Mapping[str, str]]:
        """From a row's fields, a round (such as the epoch) and the row's number to a view, or the fields themselves.

        Args:
            purpose: What for.
            share: Probability that it is a view.
        """
        switcher = self._switchers[purpose.held_out]
        return lambda fields, turn, number: switcher.view(fields, purpose, turn, number, views=share)

    def split(self, purpose: Purpose) -> Callable[[list[int], int, int], list[int]] | None:
        """From a view's encoder ids, round and row to ids of smaller tokens; None where the recipe wants none."""
        splitter, settings = self._splitter, self._settings
        if splitter is None:
            return None

        def drawn(ids: list[int], turn: int, number: int) -> list[int]:
            rng = random.Random(f"split/{self._seed}/{purpose}/{turn}/{number}")
            return splitter(ids, settings.split * rng.random(), rng)

        return drawn


def lexicon_for(model: FusedModel, english: Sequence[str]) -> Lexicon:
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
            f"{', '.join(lexicon.translations) or 'no script'}. It is {described(model.encoder)}, in which "
            "words of different languages are not near each other. Set augmentation.code_switching to 0 to train "
            "without views, or encoder.pooling to the pooling that it was trained with, if that is another."
        )
    console.print(
        f"Code-switching: {lexicon.coverage:.0%} of the English words have translations, in "
        f"{len(lexicon.translations)} scripts.",
        highlight=False,
    )
    return lexicon
