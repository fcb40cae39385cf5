"""The warm start is the ridge regression it claims to be, on the right pairs of tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from glotfuse.errors import ConfigError
from glotfuse.training.warm_start import align, overlaps
from tiny import tiny_model

TEXTS = [f"The team won match number {i} in the last minute of game {i * i}." for i in range(30)]


def test_tokens_pair_by_shared_characters() -> None:
    spans = [(0, 0), (0, 3), (3, 9), (9, 9), (-3, 0)]
    others = [(0, 2), (2, 5), (5, 9)]
    assert [(i, list(covering)) for i, covering in overlaps(spans, others)] == [(1, [0, 1]), (2, [1, 2])]


def test_projector_is_the_ridge_regression_of_lm_embeddings_on_mixed_states() -> None:
    model = tiny_model(mixer="mean", layer_norm="none")
    report = align(model, TEXTS, ridge=0.02)

    states, targets = [], []
    for text in TEXTS:
        read = model.encoder.tokenizer(text, return_offsets_mapping=True)
        ids = torch.tensor([read["input_ids"]])
        mixed = torch.stack(model.encoder(ids, None)).mean(0)[0].double().numpy()
        heard = model.lm.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        table = model.lm.model.get_input_embeddings().weight.detach().double().numpy()
        for column, (start, end) in enumerate(read["offset_mapping"]):
            covered = [
                table[token]
                for token, (a, b) in zip(heard["input_ids"], heard["offset_mapping"], strict=True)
                if max(a, start) < min(b, end)
            ]
            if end > start and covered:
                states.append(np.append(mixed[column], 1.0))
                targets.append(np.mean(covered, axis=0))
    x, y = np.array(states), np.array(targets)
    gram = x.T @ x
    expected = np.linalg.solve(gram + 0.02 * np.mean(np.diag(gram)) * np.eye(len(gram)), x.T @ y)
    np.testing.assert_allclose(model.fusion.projector.map.weight.detach().numpy().T, expected[:-1], atol=1e-4)
    np.testing.assert_allclose(model.fusion.projector.map.bias.detach().numpy(), expected[-1], atol=1e-4)
    explained = 1 - ((x @ expected - y) ** 2).sum() / ((y - y.mean(0)) ** 2).sum()
    assert report.num_tokens == len(x)
    assert report.explained_variance == pytest.approx(explained, abs=1e-4)


def test_it_stays_in_its_mode_and_changes_only_the_projector() -> None:
    model = tiny_model().train()
    before = {name: value.clone() for name, value in model.fusion.state_dict().items()}
    align(model, TEXTS)
    assert model.training
    changed = {name for name, value in model.fusion.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"projector.map.weight", "projector.map.bias"}


@pytest.mark.parametrize("projector", ["mlp", "perceiver"])
def test_other_projectors_are_refused(projector: str) -> None:
    model = tiny_model(projector=projector)
    with pytest.raises(ConfigError, match=r"linear.*warm_start to 'none'"):
        align(model, TEXTS)


def test_little_text_is_enough_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    model = tiny_model()
    assert align(model, ["a"]).num_tokens <= model.encoder.hidden_size
    assert "fewer than the encoder's width" in caplog.text
    assert model.fusion.projector.map.weight.isfinite().all()


def test_text_without_common_characters_is_refused() -> None:
    with pytest.raises(ConfigError, match="share characters"):
        align(tiny_model(), [])
