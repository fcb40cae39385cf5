"""Half precision, quantisation, device maps, moving and compiling: the answers stay, within a stated tolerance."""

from __future__ import annotations

import importlib.util
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from built import built, scores
from glotfuse.api import FusedLM
from glotfuse.backbones import BackboneOptions, load_lm
from glotfuse.backbones.quantization import QUANTIZATIONS, quantization_config
from glotfuse.errors import BackboneError, ConfigError
from glotfuse.inputs.batch import prepare, training_inputs
from glotfuse.recipes.loading import recipe_from_dict
from glotfuse.runs.backbones import backbone_options
from glotfuse.runs.measuring import measure_run
from glotfuse.runs.train import train_run
from small_runs import small_recipe, write_task
from tiny import ENCODERS, LMS, SOURCE_LANGUAGES, TEXTS, lm_folder, tiny_lm, tiny_model

SPREAD = {
    "model.embed_tokens": "disk",
    "model.rotary_emb": "cpu",
    "model.layers.0": "cpu",
    "model.layers.1": "disk",
    "model.layers.2": "cpu",
    "model.norm": "cpu",
    "lm_head": "cpu",
}
"""Accelerate's hooks move these weights in and out, as between several devices."""

HALF = {"rtol": 0.0, "atol": 0.35}
"""bfloat16 keeps 8 bits: log-probabilities of these models, of up to 20 in size, differ by so much at most."""


def train_steps(model: FusedLM, number: int = 5, language: str | None = None) -> list[float]:
    rows = [model.reader.fields(text) for text in TEXTS]
    examples = prepare(
        model.reader, model.prompt, rows, answers=[model.labels[i % 2] for i in range(len(TEXTS))], language=language
    )
    inputs = training_inputs(examples, model.encoder.pad_token_id)
    optimizer = torch.optim.AdamW(model.fusion.parameters(), lr=1e-2)
    losses = []
    model.eval()  # no dropout
    for _ in range(number):
        loss = model(**inputs)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


PAIRS = [("xlm-r", lm) for lm in LMS] + [(encoder, "llama") for encoder in ENCODERS if encoder != "xlm-r"]


@pytest.mark.parametrize(("encoder", "lm"), PAIRS)
def test_every_family_learns_and_answers_in_bfloat16(encoder: str, lm: str) -> None:
    model, exact = tiny_model(encoder, lm, dtype="bfloat16"), tiny_model(encoder, lm)
    assert (model.encoder.dtype, model.lm.dtype) == (torch.bfloat16, torch.bfloat16)
    assert {p.dtype for p in model.fusion.parameters()} == {torch.float32}
    language = "eng_Latn" if encoder in SOURCE_LANGUAGES else None
    first, second = (
        torch.tensor([list(a.probabilities.values()) for a in m.classify(TEXTS, language=language)])
        for m in (model, exact)
    )
    assert float((first - second).abs().max()) < 0.2
    assert len(model.generate(TEXTS[:2], max_new_tokens=3, language=language)) == 2
    losses = train_steps(model, language=language)
    assert losses[-1] < losses[0]
    assert losses[0] == pytest.approx(train_steps(exact, 1, language)[0], rel=0.1)


def test_a_bfloat16_model_is_saved_and_loaded_with_the_same_answers(tmp_path: Path) -> None:
    model = built()
    model.save_pretrained(tmp_path)
    half = BackboneOptions(device="cpu", dtype="bfloat16")
    loaded = [FusedLM.from_pretrained(tmp_path, encoder_options=half, lm_options=half) for _ in range(2)]
    assert torch.equal(scores(loaded[0]), scores(loaded[1]))
    torch.testing.assert_close(scores(loaded[0]), scores(model), **HALF)


def test_casting_and_moving_keep_answers() -> None:
    model = built()
    expected = scores(model)
    assert torch.equal(scores(model.to("cpu")), expected)
    assert torch.equal(scores(model.double().float()), expected)
    model.to(torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    torch.testing.assert_close(scores(model), expected, **HALF)
    model.to("meta")
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert model.device.type == model.encoder.device.type == "meta"


def test_a_spread_lm_gives_identical_answers_and_gradients() -> None:
    whole, spread = tiny_model(), tiny_model()
    spread.lm = tiny_lm("llama", device_map=SPREAD)
    assert {p.device.type for p in spread.lm.parameters()} == {"cpu", "meta"}
    assert spread.device == torch.device("cpu")  # where the hook runs the embeddings, not where the weights wait
    assert torch.equal(scores(spread), scores(whole))
    assert spread.generate(TEXTS[:2], max_new_tokens=4) == whole.generate(TEXTS[:2], max_new_tokens=4)
    assert train_steps(spread) == train_steps(whole)


def test_what_was_placed_stays_when_the_rest_is_moved(caplog: pytest.LogCaptureFixture) -> None:
    model = tiny_model()
    model.lm = tiny_lm("llama", device_map={"": "cpu"})
    assert model.hf_device_map == {"fusion": "cpu", "encoder": "cpu", "lm": "cpu"}
    assert not hasattr(tiny_model(), "hf_device_map")
    with caplog.at_level(logging.WARNING, logger="glotfuse"):
        model.to(torch.bfloat16)
    assert "stays as it was loaded" in caplog.text
    assert model.encoder.dtype == torch.bfloat16
    assert {p.dtype for p in model.lm.parameters()} == {torch.float32}
    assert scores(model).isfinite().all()


@pytest.mark.parametrize("device_map", [{"": "cpu"}, SPREAD], ids=["one device", "spread"])
def test_a_run_with_a_placed_lm_is_the_run_without(device_map: dict[str, str], tmp_path: Path) -> None:
    data = write_task(tmp_path / "data")
    short = {"epochs": 1, "evaluations": 1}
    for name, options in (("plain", {}), ("placed", {"device_map": device_map})):
        lm = {"name": lm_folder("llama"), **options}
        recipe = small_recipe(data, lm=lm, training=short)
        train_run(recipe, tmp_path / name)
        measure_run(tmp_path / name, recipe)
    first, second = (
        json.loads((tmp_path / name / "report-test.json").read_text())["results"] for name in ("plain", "placed")
    )
    assert first == second
    weights = [(tmp_path / name / "fusion.safetensors").read_bytes() for name in ("plain", "placed")]
    assert weights[0] == weights[1]


def test_a_recipe_names_devices_quantisation_and_file() -> None:
    lm = {"name": "x", "device_map": {"": "cuda:1"}, "quantization": "torchao-int8", "gguf_file": None}
    recipe = recipe_from_dict({"encoder": {"device_map": "auto"}, "lm": lm})
    options = backbone_options(recipe.lm, "cpu")
    assert (options.device_map, options.quantization) == ({"": "cuda:1"}, "torchao-int8")
    assert backbone_options(recipe.encoder, "cpu").device_map == "auto"
    with pytest.raises(ConfigError, match=r"lm\.quantization"):
        recipe_from_dict({"lm": {"quantization": "int8"}})


@pytest.mark.parametrize("compiled", ["lm", "fusion"])
def test_compiled_parts_give_the_same_answers(compiled: str, tmp_path: Path) -> None:
    model = built()
    expected, text = scores(model), model.generate(TEXTS[:1], max_new_tokens=3)
    if compiled == "lm":
        model.lm.model = torch.compile(model.lm.model, backend="eager")
    else:
        model.fusion = torch.compile(model.fusion, backend="eager")
    torch.testing.assert_close(scores(model), expected, atol=1e-4, rtol=1e-4)
    assert model.generate(TEXTS[:1], max_new_tokens=3) == text
    model.save_pretrained(tmp_path)
    assert torch.equal(scores(FusedLM.from_pretrained(tmp_path, device="cpu")), expected)


def test_what_a_quantisation_lacks_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert quantization_config("none", torch.float32, cpu) is None
    with pytest.raises(ConfigError, match="Did you mean 'torchao-int8'"):
        quantization_config("torchao-int-8", torch.float32, cpu)
    with pytest.raises(BackboneError, match=r"cuda for the quantization torchao-int4; found cpu\..*torchao-int8"):
        quantization_config("torchao-int4", torch.float32, cpu)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    for name, kind in QUANTIZATIONS.items():
        if "cpu" in kind.devices:
            with pytest.raises(BackboneError, match=r"pip install 'glotfuse\[quantized\]'"):
                quantization_config(name, torch.float32, cpu)


def quantized(name: str, dtype: str = "float32") -> Any:
    pytest.importorskip(QUANTIZATIONS[name].package)
    return load_lm(lm_folder("llama"), BackboneOptions(device="cpu", quantization=name, dtype=dtype))


def frozen_bytes(model: FusedLM) -> list[bytes]:
    """Of the LM's weights; torchao keeps the whole numbers in `qdata`."""
    weights = (getattr(p, "qdata", p) for p in model.lm.parameters())
    return [w.detach().contiguous().view(torch.uint8).numpy().tobytes() for w in weights]


def test_torchao_int8_is_the_model_of_the_rounded_weights() -> None:
    """Against a plain LM whose weights were rounded by hand: 255 levels per row, symmetric."""
    found, plain = quantized("torchao-int8"), tiny_lm("llama")
    for name, module in plain.model.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            scale = module.weight.abs().amax(dim=1, keepdim=True) / 127.5
            module.weight.data = (module.weight / scale).round().clamp(-128, 127) * scale
    model, expected = tiny_model(), tiny_model()
    model.lm, expected.lm = found, plain
    # weights that are just between two levels may be rounded to the other one
    rounding = float((scores(tiny_model()) - scores(expected)).abs().max())
    assert float((scores(model) - scores(expected)).abs().max()) < rounding / 5
    assert train_steps(model)[0] == pytest.approx(train_steps(expected)[0], rel=0.01)


@pytest.mark.parametrize("name", ["torchao-int8", "bitsandbytes-8bit"])
def test_a_quantised_lm_teaches_the_fusion_and_is_found_again(name: str, tmp_path: Path) -> None:
    model = tiny_model()
    model.lm = quantized(name)
    before = frozen_bytes(model)
    losses = train_steps(model, 6)
    assert losses[-1] < losses[0]
    assert frozen_bytes(model) == before
    saved = built()
    saved.lm = model.lm
    saved.save_pretrained(tmp_path)
    loaded = FusedLM.from_pretrained(tmp_path, device="cpu")
    assert loaded.lm.identity.quantization == name
    torch.testing.assert_close(scores(loaded), scores(saved))
