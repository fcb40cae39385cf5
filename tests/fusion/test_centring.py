"""Centring: what all states of a layer have in common goes, as English training text shows it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from glotfuse import FusedLM
from glotfuse.errors import ConfigError
from glotfuse.fusion import Fusion
from glotfuse.model.assembly import build_model
from glotfuse.recipes.config import FusionConfig, PromptConfig
from glotfuse.training.centring import centre
from tiny import tiny_encoder, tiny_lm, tiny_model

TEXTS = ["the cat sat on the mat", "rain", "prices rose again this week in the city"]
MIXERS = ["last", "mean", "global_softmax", "transformer_softmax"]


def centred_model(mixer: str) -> tuple[FusedLM, list[list[int]]]:
    model = tiny_model(mixer=mixer, centre=True)
    ids = [example.encoder_ids for example in model.prepare(TEXTS)]
    return model, ids


@pytest.mark.parametrize("mixer", MIXERS)
def test_centred_states_have_mean_zero_and_scale_one(mixer: str) -> None:
    model, ids = centred_model(mixer)
    assert centre(model, ids) == sum(map(len, ids))
    for place, layer in enumerate(model.fusion.mixer.layers):
        rows = []
        for row in ids:  # one text at a time: no padding anywhere
            states = model.encoder(torch.tensor([row]), torch.ones(1, len(row), dtype=torch.bool), [layer])[0][0]
            rows.append(states)
        states = model.fusion.ready(torch.cat(rows).unsqueeze(0), layer)[0]
        torch.testing.assert_close(states.mean(0), torch.zeros(states.shape[1]), atol=1e-5, rtol=0)
        torch.testing.assert_close(states.pow(2).mean(), torch.tensor(1.0), atol=1e-4, rtol=0)
        assert place >= 0


@pytest.mark.parametrize("mixer", MIXERS)
def test_the_running_sum_is_that_of_all_layers_at_once(mixer: str) -> None:
    model, ids = centred_model(mixer)
    centre(model, ids)
    model.eval()
    batch = model_batch(model)
    with torch.no_grad():
        fast = model.span(batch)
        states = model.encoder(batch.encoder_ids, batch.encoder_mask)
        plain = model.fusion(states, batch.encoder_mask)
    torch.testing.assert_close(fast.embeddings, plain.embeddings, atol=1e-5, rtol=1e-4)


def model_batch(model: FusedLM):  # type: ignore[no-untyped-def]
    from glotfuse.inputs.batch import collate

    return collate(model.prepare(TEXTS), model.encoder.pad_token_id)


def test_padding_stays_zero() -> None:
    model, ids = centred_model("mean")
    centre(model, ids)
    batch = model_batch(model)
    states = model.encoder(batch.encoder_ids, batch.encoder_mask)
    mixed = model.fusion.mix(states, batch.encoder_mask).mixed
    assert mixed[~batch.encoder_mask].abs().max() == 0


def test_its_figures_are_saved_and_loaded(tmp_path: Path) -> None:
    model = build_model(
        FusedLM,
        tiny_encoder(),
        tiny_lm(),
        fusion=FusionConfig(mixer="mean", centre=True),
        prompt=PromptConfig(),
        max_length=64,
        template="{text}",
        cut_column="text",
        instruction=None,
        labels=["science", "politics"],
    )
    centre(model, [example.encoder_ids for example in model.prepare(TEXTS)])
    model.save_pretrained(tmp_path / "run")
    loaded = FusedLM.from_pretrained(tmp_path / "run", encoder=model.encoder, lm=model.lm)
    assert loaded.fusion.centring is not None
    torch.testing.assert_close(loaded.fusion.centring.mean, model.fusion.centring.mean)
    torch.testing.assert_close(loaded.fusion.centring.scale, model.fusion.centring.scale)
    assert loaded.fusion.centring.mean.abs().max() > 0


def test_off_means_off() -> None:
    assert Fusion(3, 8, 8).centring is None
    assert not [name for name in Fusion(3, 8, 8).state_dict() if "centring" in name]


def test_no_text_is_an_error() -> None:
    model, _ = centred_model("last")
    with pytest.raises(ConfigError, match="centre encoder states"):
        centre(model, [])
