"""mmBERT, EmbeddingGemma, BGE-M3 and Qwen3-Embedding: read as they were trained to be, and embedded likewise."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from glotfuse.backbones import Encoder
from glotfuse.model.sentence_embeddings import sentence_embeddings
from tiny import TEXTS, encoder_folder, tiny_encoder

FAMILIES = ("mmbert", "embedding-gemma", "bge-m3", "qwen3-embedding")


@pytest.fixture(scope="module", params=FAMILIES)
def encoder(request: pytest.FixtureRequest) -> Encoder:
    return tiny_encoder(request.param)


def as_documented(family: str, side: str) -> Tensor:
    """Embeddings of the texts in one batch by transformers alone, as the models' cards make them."""
    from safetensors.torch import load_file
    from transformers import AutoModel, AutoTokenizer

    folder = encoder_folder(family)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    batch = AutoTokenizer.from_pretrained(folder, padding_side=side)(list(TEXTS), padding=True, return_tensors="pt")
    assert not bool(batch["attention_mask"].all())
    mask = batch["attention_mask"].bool()
    positions = (mask.cumsum(1) - 1).clamp(min=0)  # what transformers' own generation does with padding at the left
    extra = {} if family == "bge-m3" else {"position_ids": positions}
    with torch.no_grad():
        states = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], **extra).last_hidden_state
    rows = [state[real] for state, real in zip(states, mask, strict=True)]
    if family == "bge-m3":
        return torch.stack([row[0] for row in rows])
    if family == "qwen3-embedding":
        return states[:, -1] if side == "left" else torch.stack([row[-1] for row in rows])
    means = torch.stack([row.mean(0) for row in rows])
    if family == "embedding-gemma":
        for number in (2, 3):
            means = means @ load_file(f"{folder}/{number}_Dense/model.safetensors")["linear.weight"].T
    return means


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", FAMILIES)
def test_embeddings_are_those_of_the_models_own_recipe(family: str, side: str) -> None:
    encoder = tiny_encoder(family)
    found = sentence_embeddings(encoder, encoder.tokenize(TEXTS))
    expected = torch.nn.functional.normalize(as_documented(family, side), dim=-1)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("family", "first", "last"),
    [
        ("mmbert", "<bos>", "<eos>"),
        ("embedding-gemma", "<bos>", "<eos>"),
        ("bge-m3", "<s>", "</s>"),
        ("qwen3-embedding", None, "<|endoftext|>"),
    ],
)
def test_texts_have_the_special_tokens_of_training(family: str, first: str | None, last: str) -> None:
    encoder = tiny_encoder(family)
    for ids in encoder.tokenize(TEXTS):
        names = encoder.tokenizer.convert_ids_to_tokens(ids)
        specials = [name for name in names if name in encoder.tokenizer.all_special_tokens]
        assert specials == [name for name in (first, last) if name]
        assert names[-1] == last
        assert first in (None, names[0])


def changed(encoder: Encoder, place: int, layer: int) -> list[bool]:
    """Which tokens' states another token in some place changes."""
    ids = torch.tensor([[7 + number % 5 for number in range(24)]])
    other = ids.clone()
    other[0, place] = 150
    before, after = (encoder(row, None)[layer][0] for row in (ids, other))
    return [bool(x) for x in ((before - after).abs().amax(-1) > 1e-5)]


@pytest.mark.parametrize("family", FAMILIES)
def test_what_reads_both_ways_and_what_looks_back(family: str) -> None:
    found = changed(tiny_encoder(family), 12, -1)
    assert found == [number >= 12 for number in range(24)] if family == "qwen3-embedding" else all(found)


@pytest.mark.parametrize(("family", "layer"), [("mmbert", 1), ("embedding-gemma", 0)])
def test_windows_of_attention_stay(family: str, layer: int, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = tiny_encoder(family)
    if family == "mmbert":  # its first layer sees everything: the second is fed with what the first was
        blocks = encoder.model.layers
        monkeypatch.setattr(blocks[0], "forward", lambda hidden_states, **_: hidden_states)
    assert changed(encoder, 12, layer) == [abs(number - 12) <= 4 for number in range(24)]


def test_no_keys_and_values_are_kept(encoder: Encoder) -> None:
    ids = torch.tensor(encoder.tokenize(TEXTS[:1]))
    assert getattr(encoder.model(input_ids=ids), "past_key_values", None) is None


def test_the_side_of_the_tokenizers_padding_does_not_matter(encoder: Encoder) -> None:
    ids = encoder.tokenize(TEXTS)
    before: Any = encoder.tokenizer.padding_side
    expected = sentence_embeddings(encoder, ids)
    try:
        encoder.tokenizer.padding_side = "right" if before == "left" else "left"
        assert torch.equal(sentence_embeddings(encoder, encoder.tokenize(TEXTS)), expected)
    finally:
        encoder.tokenizer.padding_side = before
    for row, one in zip(expected, ids, strict=True):
        torch.testing.assert_close(sentence_embeddings(encoder, [one])[0], row, atol=1e-4, rtol=1e-3)
