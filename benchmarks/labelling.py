"""Label scores against generation, against a full pass for each label word, and against the bare LM."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from benchmarks.measure import Row, alternate, row
from benchmarks.setting import TOPICS, build, cached, english
from benchmarks.textbook import TextbookModel
from glotfuse.api import FusedLM
from glotfuse.inputs.batch import PreparedExample, collate
from glotfuse.inputs.order import inference_batches
from glotfuse.model import scoring
from glotfuse.model.classification import classify


def expect_fast(model: FusedLM) -> None:
    """Stops where the fast paths were not taken."""
    if not model.branching or model.head_cache(model.prompt) is None:
        raise SystemExit("Expected label words to be read as a tree behind a cached head; found them read otherwise.")


def bare_forward(model: FusedLM, batches: Sequence[list[PreparedExample]]) -> Callable[[], None]:
    """The floor: one forward pass of the LM alone over span and tail, logits at the last position."""
    rows = []
    with model.answering():
        for examples in batches:
            sequences = model.assemble(collate(examples, model.encoder.pad_token_id))
            rows.append((sequences.embeddings.clone(), sequences.last()))

    def run() -> None:
        with torch.inference_mode():
            for embeddings, keep in rows:
                model.lm.run(embeddings, keep)

    return run


def our_batches(model: FusedLM, examples: list[PreparedExample]) -> list[list[PreparedExample]]:
    lengths = [len(e.encoder_ids) for e in examples]
    return [[examples[i] for i in chosen] for chosen in inference_batches(lengths, 32, model.device)]


def classification(short: bool) -> list[Row]:
    """Seven label words: against generation and string match, and against the bare LM."""
    model = build(TOPICS).eval()
    examples = model.prepare([text for text, _ in english(32 if short else 128)])
    textbook = TextbookModel(model).eval()
    ours = {"ours": lambda: classify(model, examples, 32)}
    rounds = 2 if short else 3
    # a trained model ends its answer after the label; this one, not trained, is stopped there
    longest = max(map(len, model.label_ids)) + 1
    against_book = alternate({**ours, "textbook": lambda: textbook.classify(examples, max_tokens=longest)}, rounds)
    expect_fast(model)
    floor = bare_forward(model, our_batches(model, examples))
    against_bare = alternate({**ours, "bare": floor}, rounds)
    single = build(("film", "map", "health", "law", "science", "work", "travel")).eval()
    few = single.prepare([text for text, _ in english(32 if short else 128)])
    if any(len(ids) > 1 for ids in single.label_ids):
        raise SystemExit(f"Expected label words of one token; found {single.label_ids}.")
    with cached(single):
        classify(single, few, 32)
        known = alternate(
            {
                "ours": lambda: classify(single, few, 32),
                "bare": bare_forward(single, our_batches(single, few)),
            },
            rounds,
        )
    return [
        row(
            "classification, 7 labels: textbook / ours", against_book["ours"], against_book["textbook"], "s", at_least=3
        ),
        row(
            "classification: ours / bare LM, encoder included",
            against_bare["ours"],
            against_bare["bare"],
            "s",
            at_most=1.15,
        ),
        row(
            "classification: ours / bare LM, states cached, labels of one token",
            known["ours"],
            known["bare"],
            "s",
            at_most=1.15,
        ),
    ]


def whole_passes(model: FusedLM, examples: list[PreparedExample]) -> Tensor:
    """Scores (B,R) by a full pass of the whole prompt for every label word, as without a cached head."""
    model.cache_head = False
    try:
        with model.answering():
            return scoring.score_labels(model, collate(examples, model.encoder.pad_token_id))
    finally:
        model.cache_head = True


def long_labels() -> list[str]:
    """Fifty label words of four tokens and more."""
    areas = ("international", "regional", "municipal", "historical", "contemporary")
    topics = ("football championships", "parliamentary elections", "pharmaceutical research", "classical musicians")
    topics += ("mountain landscapes", "railway timetables", "agricultural subsidies", "satellite launches")
    topics += ("vegetarian cooking", "museum exhibitions")
    return [f"{area} {topic} news" for area in areas for topic in topics]


def many_labels(short: bool) -> list[Row]:
    """Fifty long label words: one tree against a full pass for each."""
    model = build(long_labels(), instruction="What is this text about?").eval()
    if min(map(len, model.label_ids)) < 4:
        raise SystemExit(f"Expected label words of four tokens or more; found {min(model.label_ids, key=len)}.")
    examples = model.prepare([text for text, _ in english(8)])
    with model.answering():
        scoring.score_labels(model, collate(examples, model.encoder.pad_token_id))
        expect_fast(model)
        found = scoring.score_labels(model, collate(examples, model.encoder.pad_token_id))
        gap = float((found - whole_passes(model, examples)).abs().max())
    if gap > 1e-2:
        raise SystemExit(f"Expected the same scores both ways; found a difference of {gap:.1e}.")
    seconds = alternate(
        {"ours": lambda: classify(model, examples, 8), "each": lambda: whole_passes(model, examples)},
        rounds=1 if short else 2,
        warm_up=0,
    )
    name = "50 label words of 4+ tokens: a full pass for each / ours"
    return [row(name, seconds["ours"], seconds["each"], "s", at_least=20)]
