"""What the recommended recipe costs beside Transformer Softmax: training per example, and memory."""

from __future__ import annotations

import time

from benchmarks.measure import Row, alternate, peak_megabytes, row
from benchmarks.setting import TOPICS, build, cached, english, prepared
from benchmarks.steps import grouped_batches, our_trainer
from glotfuse.inputs.batch import prepare
from glotfuse.recipes.config import FusionConfig
from glotfuse.recipes.loading import QUICKSTART, load_recipe
from glotfuse.runs.views import lexicon_for
from glotfuse.training.code_switching import Switcher, ViewSettings, english_words


def recommended(short: bool) -> list[Row]:
    """Training on code-switched views, encoded as they come, against Transformer Softmax with cached states."""
    recipe = load_recipe(QUICKSTART, ["training.epochs=1", "device=cpu"])
    rows = english(64 if short else 128)
    tokenwise = build(TOPICS, fusion=FusionConfig())
    model = build(TOPICS, fusion=recipe.fusion, prefix=recipe.encoder.prefix)
    plain = prepared(tokenwise, rows)
    started = time.monotonic()
    lexicon = lexicon_for(model, english_words(text for text, _ in rows))
    seconds_of_lexicon = time.monotonic() - started
    words = recipe.augmentation.switched_words
    switcher = Switcher(lexicon, ["text"], settings=ViewSettings(words), seed=0)
    fields = [
        switcher.view({"text": text}, number, views=recipe.augmentation.code_switching)
        for number, (text, _) in enumerate(rows)
    ]
    views = prepare(model.reader, model.prompt, fields, answers=[label for _, label in rows])
    ours, other = our_trainer(model), our_trainer(tokenwise)
    with cached(tokenwise):
        sides = {
            "ours": lambda: ours.run(grouped_batches(views, 0)),
            "tokenwise": lambda: other.run(grouped_batches(plain, 0)),
        }
        seconds = alternate(sides, rounds=1 if short else 5)
        megabytes = {name: peak_megabytes(side) for name, side in sides.items()}
    each = {name: [second / len(rows) for second in found] for name, found in seconds.items()}
    once = "words of the vocabulary to translations (from the store, if it has them) / five minutes"
    return [
        row(
            "training per example: recommended / transformer_softmax", each["ours"], each["tokenwise"], "s", at_most=1.3
        ),
        row("the same, peak memory", [megabytes["ours"]], [megabytes["tokenwise"]], "MB", at_most=1.3),
        row(once, [seconds_of_lexicon], [300.0], "s", at_most=1.0),
    ]
