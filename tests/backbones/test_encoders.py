"""Encoders of all kinds: the right states, whatever the padding, frozen for good, in the right language."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from glotfuse.backbones import BackboneOptions, Encoder, load_encoder
from glotfuse.errors import BackboneError
from tiny import ENCODERS, SOURCE_LANGUAGES, TEXTS, encoder_folder, tiny_encoder

NUM_LAYERS, WIDTH = 3, 24


@pytest.fixture(scope="module", params=ENCODERS)
def encoder(request: pytest.FixtureRequest) -> Encoder:
    return tiny_encoder(request.param)


def padded(encoder: Encoder, rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    longest = max(map(len, rows))
    ids = torch.tensor([row + [encoder.pad_token_id] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return ids, mask


def blocks(model: nn.Module) -> nn.ModuleList:
    return next(m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == NUM_LAYERS)


def test_states_are_the_outputs_of_the_blocks_without_the_embeddings(encoder: Encoder) -> None:
    received: list[Tensor] = []
    returned: list[Tensor] = []

    def record(_: nn.Module, inputs: Any, kwargs: Any, output: Any) -> None:
        received.append(inputs[0] if inputs else kwargs["hidden_states"])
        returned.append(output[0] if isinstance(output, tuple) else output)

    hooks = [block.register_forward_hook(record, with_kwargs=True) for block in blocks(encoder.model)]
    ids, mask = padded(encoder, encoder.tokenize(TEXTS))
    states = encoder(ids, mask)
    for hook in hooks:
        hook.remove()
    last = encoder.model(input_ids=ids, attention_mask=mask).last_hidden_state
    assert encoder.num_layers == len(states) == NUM_LAYERS
    assert encoder.hidden_size == encoder.identity.hidden_size == WIDTH
    assert {tuple(state.shape) for state in states} == {(len(TEXTS), ids.shape[1], WIDTH)}
    for state, output in zip(states[:-1], returned[:-1], strict=True):
        assert torch.equal(state, output)
    assert torch.equal(states[-1], last)  # normalised, where the model normalises at the end
    assert not torch.allclose(states[0], received[0], atol=0.01)


def test_a_fresh_model_of_transformers_gives_the_same_states(encoder: Encoder) -> None:
    from transformers import AutoModel

    model = AutoModel.from_pretrained(encoder.identity.name, dtype=torch.float32).eval()
    model = model.get_encoder() if model.config.is_encoder_decoder else model
    for row in encoder.tokenize(TEXTS):
        with torch.no_grad():
            expected = model(input_ids=torch.tensor([row]), output_hidden_states=True).hidden_states[1:]
        for state, state_expected in zip(encoder(torch.tensor([row]), None), expected, strict=True):
            torch.testing.assert_close(state, state_expected, atol=1e-5, rtol=1e-5)


def test_padding_does_not_change_a_texts_states(encoder: Encoder) -> None:
    rows = encoder.tokenize(TEXTS)
    assert len({len(row) for row in rows}) > 2
    together = encoder(*padded(encoder, rows))
    for index, row in enumerate(rows):
        for state, alone in zip(together, encoder(torch.tensor([row]), None), strict=True):
            scale = float(alone.abs().max())  # T5's states grow with depth
            torch.testing.assert_close(state[index, : len(row)], alone[0], atol=1e-4 * scale, rtol=0)


def test_texts_and_layers_have_different_states(encoder: Encoder) -> None:
    first, second = (encoder(torch.tensor([row]), None) for row in encoder.tokenize(TEXTS[:2]))
    assert (first[-1][0, -1] - second[-1][0, -1]).abs().max() > 0.05
    assert (first[0] - first[1]).abs().max() > 0.05


def test_it_stays_in_evaluation_mode_without_gradient(encoder: Encoder) -> None:
    encoder.train()
    assert not any(module.training for module in encoder.modules())
    assert not any(weights.requires_grad for weights in encoder.parameters())
    ids, mask = padded(encoder, encoder.tokenize(TEXTS))
    first, second = encoder(ids, mask), encoder(ids, mask)
    assert not any(state.requires_grad for state in first)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))  # no dropout


def test_training_mode_of_the_model_around_it_does_not_reach_it(encoder: Encoder) -> None:
    nn.Sequential(encoder).train()
    assert not any(module.training for module in encoder.modules())


@pytest.mark.parametrize(
    ("family", "expected"),
    [("mt5", None), ("umt5", None), ("xlm-r", 128), ("bert", 130), ("modernbert", 130), ("m2m100", 128)],
)
def test_the_length_limit_is_the_models(family: str, expected: int | None) -> None:
    encoder = tiny_encoder(family)
    assert encoder.max_length == expected
    if expected is not None:
        some = encoder.tokenize(["a"])[0][0]
        encoder(torch.full((1, expected), some + 5), None)


def test_a_text_is_never_cut_and_the_prefix_is_added() -> None:
    plain, prefixed = tiny_encoder("xlm-r"), tiny_encoder("xlm-r", prefix="query: ")
    long = "The economy is growing. " * 60
    assert len(plain.tokenize([long])[0]) > plain.max_length
    assert prefixed.tokenize([TEXTS[0]]) == plain.tokenize(["query: " + TEXTS[0]])


def test_half_precision_states_are_near_the_full_ones() -> None:
    full, half = tiny_encoder("xlm-r"), tiny_encoder("xlm-r", dtype="bfloat16")
    ids, mask = padded(full, full.tokenize(TEXTS))
    for state, state_half in zip(full(ids, mask), half(ids, mask), strict=True):
        assert state_half.dtype == torch.bfloat16
        real = mask.bool()
        assert (state[real] - state_half.float()[real]).norm() < 0.05 * state[real].norm()


def code_of(encoder: Encoder, language: str | None) -> str:
    """The language token that the encoder puts before a text."""
    (ids,) = encoder.tokenize([TEXTS[1]], language)
    return str(encoder.tokenizer.convert_ids_to_tokens(ids[0])).strip("_")


@pytest.mark.parametrize(
    ("family", "language", "expected"),
    [
        ("nllb", "sin_Sinh", "sin_Sinh"),
        ("nllb", "tam_Taml", "tam_Taml"),
        ("nllb", "si", "sin_Sinh"),
        ("nllb", "zho_Hant", "zho_Hant"),
        ("m2m100", "sin_Sinh", "si"),
        ("m2m100", "tam_Taml", "ta"),
        ("m2m100", "si", "si"),
    ],
)
def test_the_source_language_is_set(family: str, language: str, expected: str) -> None:
    assert code_of(tiny_encoder(family), language) == expected


@pytest.mark.parametrize("family", SOURCE_LANGUAGES)
def test_the_language_changes_the_states(family: str) -> None:
    encoder = tiny_encoder(family)
    sinhala, tamil = encoder.tokenize([TEXTS[1]], "sin_Sinh"), encoder.tokenize([TEXTS[1]], "tam_Taml")
    assert sinhala[0][0] != tamil[0][0]
    assert sinhala[0][1:] == tamil[0][1:]
    states = [encoder(torch.tensor(ids), None)[-1] for ids in (sinhala, tamil)]
    assert (states[0] - states[1]).abs().max() > 0.05


@pytest.mark.parametrize("family", SOURCE_LANGUAGES)
def test_a_text_without_language_does_not_depend_on_the_texts_before_it(family: str) -> None:
    encoder = tiny_encoder(family)
    before = encoder.tokenize([TEXTS[0]])
    encoder.tokenize([TEXTS[1]], "sin_Sinh")
    assert encoder.tokenize([TEXTS[0]]) == before


def test_a_fixed_source_language_wins() -> None:
    assert code_of(tiny_encoder("nllb", src_lang="tam_Taml"), "sin_Sinh") == "tam_Taml"


@pytest.mark.parametrize("language", ["xxx_Latn", "zho", "English"])
def test_an_unknown_or_ambiguous_language_is_refused(language: str) -> None:
    encoder = tiny_encoder("nllb")
    with pytest.raises(BackboneError, match=f"202 codes .*found '{language}'"):
        encoder.tokenize([TEXTS[0]], language)
    with pytest.raises(BackboneError, match=r"found 'sni_Sinh'\. Did you mean 'sin_Sinh'"):
        encoder.tokenize([TEXTS[0]], "sni_Sinh")


def test_a_source_language_for_a_tokenizer_that_takes_none_is_refused() -> None:
    with pytest.raises(BackboneError, match="takes no source language; found 'sin_Sinh'"):
        tiny_encoder("xlm-r", src_lang="sin_Sinh")


def test_other_tokenizers_need_no_language() -> None:
    encoder = tiny_encoder("xlm-r")
    assert encoder.tokenize([TEXTS[1]], "sin_Sinh") == encoder.tokenize([TEXTS[1]])


def test_the_hidden_size_is_that_of_the_states_not_of_the_embedding_table(tmp_path: Any) -> None:
    from transformers import AlbertConfig, AlbertModel, AutoTokenizer

    from glotfuse.backbones import BackboneOptions, load_encoder

    AutoTokenizer.from_pretrained(encoder_folder("bert")).save_pretrained(tmp_path)
    config = AlbertConfig(
        vocab_size=470,
        embedding_size=8,
        hidden_size=24,
        num_attention_heads=2,
        intermediate_size=32,
        num_hidden_layers=2,
    )
    AlbertModel(config).save_pretrained(tmp_path)
    encoder = load_encoder(str(tmp_path), BackboneOptions(device="cpu"))
    assert encoder.identity.hidden_size == encoder.hidden_size == 24


@pytest.mark.parametrize("family", ENCODERS)
def test_names_of_special_tokens_in_a_text_are_text(family: str) -> None:
    encoder = tiny_encoder(family)
    language = "en" if family == "m2m100" else "eng_Latn" if family in SOURCE_LANGUAGES else None
    names, unknown = encoder.tokenizer.all_special_tokens, encoder.tokenizer.unk_token
    [plain] = encoder.tokenize(["a b"], language)
    for name in (name for name in names if name != unknown):
        special = encoder.tokenizer.convert_tokens_to_ids(name)
        [found] = encoder.tokenize([f"a {name} b"], language)
        assert found.count(special) == plain.count(special), name


@pytest.mark.parametrize("family", ["mt5", "umt5", "m2m100"])
def test_the_encoder_half_alone_loads_as_the_whole_model_does(family: str, tmp_path: Any) -> None:
    from transformers import AutoModel, AutoTokenizer

    folder = encoder_folder(family)
    whole = AutoModel.from_pretrained(folder)
    if family == "m2m100":
        half = whole.get_encoder()
    else:
        import transformers

        half = getattr(transformers, type(whole).__name__.replace("Model", "EncoderModel")).from_pretrained(folder)
    half.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    ids = torch.tensor([[5, 6, 7, 1]])
    expected = tiny_encoder(family)(ids, None)
    found = load_encoder(str(tmp_path), BackboneOptions(device="cpu"))(ids, None)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)
