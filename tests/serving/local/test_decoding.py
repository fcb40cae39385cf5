"""Step-by-step generation gives what `FusedLM.generate` gives, whoever joins and leaves meanwhile."""

from __future__ import annotations

import pytest
import torch

from glotfuse.api import FusedLM
from glotfuse.serving.encoding import prepare
from glotfuse.serving.local.decoding import Decoder, Row
from glotfuse.serving.local.sampling import Sampler
from glotfuse.serving.requests import GenerateRequest
from tiny import TEXTS, tiny_model

STEPS = 12


def row_for(model: FusedLM, text: str, instruction: str | None = None, **options: float) -> Row:
    request = GenerateRequest(text, instruction=instruction, **options)
    return Row(prepare(model, text, None, model.prompt_for(instruction)), Sampler(model, request))


def expected(model: FusedLM, text: str, instruction: str | None = None, **options: int) -> list[int]:
    """The tokens that transformers' own loop gives to the text alone, ends ignored."""
    from glotfuse.model.generation import left_padded

    prompt = model.prompt_for(instruction)
    with model.answering():
        inputs = left_padded(model, model.prepare([text], None, prompt), prompt)
        ids = model.lm.model.generate(**inputs, max_new_tokens=STEPS, do_sample=False, eos_token_id=None, **options)
    return ids[0].tolist()


@pytest.mark.parametrize(
    "lm", ["llama", "gpt2", "gemma3", "mistral-short", "bloom", "mamba", "falcon-h1", "gemma3-vision"]
)
def test_rows_that_join_and_leave_get_the_tokens_that_generate_gives_alone(lm: str) -> None:
    model = tiny_model("xlm-r", lm)
    decoder = Decoder(model)
    long, short, late = (row_for(model, text) for text in (TEXTS[0] * 2, TEXTS[1], TEXTS[2]))
    other = row_for(model, TEXTS[3], "Say it in other words.")
    decoder.join([long, short])
    for _ in range(2):
        decoder.step()
    decoder.join([late, other])
    decoder.step()
    decoder.leave([long])
    for _ in range(STEPS):
        decoder.step()
    assert len(long.ids) == 4
    assert long.ids == expected(model, TEXTS[0] * 2)[:4]
    assert short.ids[:STEPS] == expected(model, TEXTS[1])
    assert late.ids[:STEPS] == expected(model, TEXTS[2])
    assert other.ids[:STEPS] == expected(model, TEXTS[3], "Say it in other words.")


def test_the_cache_is_as_long_as_its_longest_row() -> None:
    model = tiny_model()
    decoder = Decoder(model)
    long, short = row_for(model, TEXTS[0] * 3), row_for(model, "a")
    decoder.join([long, short])
    decoder.leave([long])
    decoder.step()
    assert decoder._mask is not None
    assert decoder._mask.shape == (1, short.num_prompt + 1)
    decoder.leave([short])
    assert decoder._layers == []


def test_a_seed_gives_the_same_sample_alone_and_among_others() -> None:
    model = tiny_model()

    def sample(seed: int, company: int) -> list[int]:
        decoder, row = Decoder(model), row_for(model, TEXTS[0], temperature=1.0, seed=seed)
        decoder.join([*(row_for(model, TEXTS[1 + i], temperature=1.0) for i in range(company)), row])
        for _ in range(8):
            decoder.step()
        return row.ids

    assert sample(1, 0) == sample(1, 2)
    assert sample(1, 0) != sample(2, 0)


def test_top_p_leaves_only_the_most_probable_tokens() -> None:
    model = tiny_model()
    sampler = Sampler(model, GenerateRequest("a", temperature=1.0, top_p=0.5, seed=0))
    logits = torch.log(torch.tensor([0.4, 0.3, 0.2, 0.1]))
    drawn = [sampler.choose([], logits) for _ in range(300)]
    assert set(drawn) == {0, 1}
    assert drawn.count(0) / 300 == pytest.approx(4 / 7, abs=0.1)


def test_a_repetition_penalty_of_the_lm_applies_as_in_generate() -> None:
    model = tiny_model()
    before = model.lm.model.generation_config.repetition_penalty
    model.lm.model.generation_config.repetition_penalty = 5.0
    try:
        decoder, row = Decoder(model), row_for(model, TEXTS[0])
        decoder.join([row])
        for _ in range(STEPS - 1):
            decoder.step()
        assert row.ids == expected(model, TEXTS[0])
    finally:
        model.lm.model.generation_config.repetition_penalty = before


def test_a_checkpoint_that_bans_repeated_ngrams_has_them_banned_here_as_in_generate() -> None:
    model = tiny_model()
    model.settings["prompt"] = {**model.settings["prompt"], "no_repeat_ngram_size": 1}
    decoder, row = Decoder(model), row_for(model, TEXTS[0])
    decoder.join([row])
    for _ in range(STEPS - 1):
        decoder.step()
    assert len(set(row.ids)) == len(row.ids)
    assert row.ids == expected(model, TEXTS[0], no_repeat_ngram_size=1)
