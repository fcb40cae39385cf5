"""An adapter that is trained: what changes and what never does, no stale head, resumed without a trace, saved whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from glotfuse.run_folder import read_config

pytest.importorskip("peft")

from glotfuse.api import FusedLM
from glotfuse.backbones import add_adapter
from glotfuse.backbones.identity import hash_module
from glotfuse.errors import CheckpointError, ConfigError
from glotfuse.inputs.batch import training_inputs
from glotfuse.model import checkpoint
from glotfuse.runs.train import train_run
from glotfuse.training import trainer as training
from glotfuse.training.development import DevExamples, development_metrics
from glotfuse.training.state import TrainingInterruptedError
from small_runs import small_recipe, write_task
from small_training import OPTIONS, InterruptAt, fresh, train
from tiny import TEXTS, score_labels, tiny_encoder, tiny_lm

LORA: dict[str, Any] = {"kind": "lora", "rank": 2, "learning_rate": 0.02}


def adapted(dropout: float = 0.0, **options: Any) -> tuple[FusedLM, Any, list[Any], DevExamples]:
    """A model whose LM has an adapter that learns, and the LM without it."""
    model, examples, dev = fresh(**options)
    plain = model.lm
    model.lm = add_adapter(plain, rank=2, dropout=dropout, seed=7)
    return model.eval(), plain, examples, dev


def adapter_of(model: FusedLM) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.lm.adapter.tensors.items()}


def test_fusion_and_adapter_change_and_nothing_else(tmp_path: Path) -> None:
    model, plain, examples, dev = adapted(dropout=0.1)
    before = hash_module(model.encoder), hash_module(plain), hash_module(model.fusion)
    start = adapter_of(model)
    train(model, examples, dev, tmp_path, adapter_learning_rate=0.02, **OPTIONS)
    assert (hash_module(model.encoder), hash_module(plain)) == before[:2]
    assert hash_module(model.fusion) != before[2]
    assert all(not torch.equal(tensor, start[name]) for name, tensor in adapter_of(model).items())
    own = {id(p) for p in plain.parameters()}
    assert all(".lora_" in name for name, p in model.lm.named_parameters() if id(p) not in own)


def test_adapter_and_fusion_have_learning_rates_of_their_own(tmp_path: Path) -> None:
    """One step of Adam moves every weight with a gradient by the learning rate."""
    model, _, examples, _ = adapted()
    start, boundary = adapter_of(model), model.fusion.boundary.detach().clone()
    options = {**OPTIONS, "epochs": 1, "batch_size": 9, "warmup_ratio": 0.0, "learning_rate": 1e-3}
    train(model, examples, None, tmp_path, adapter_learning_rate=0.05, **options)
    moved = max(float((tensor - start[name]).abs().max()) for name, tensor in adapter_of(model).items())
    assert moved == pytest.approx(0.05, rel=1e-2)
    assert float((model.fusion.boundary.detach() - boundary).abs().max()) == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("lm", ["llama", "gpt2", "gemma2"])
def test_gradients_are_those_of_the_whole_prompt(lm: str, checkpointing: bool) -> None:
    """The head is read with gradient: against the adapted LM run row by row over all tokens."""
    model, _, examples, _ = adapted(lm=lm)
    for tensor in model.lm.adapter.tensors.values():
        tensor.data += 0.1 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(2))
    classify_first = score_labels(model, examples[:2])  # fills the head's cache while nothing is learned
    assert classify_first.requires_grad
    model.gradient_checkpointing = checkpointing
    inputs = training_inputs(examples[:3], model.encoder.pad_token_id)
    model(**inputs)["loss"].backward()
    found = {name: p.grad.clone() for name, p in model.lm.adapter.tensors.items()}
    model.zero_grad(set_to_none=True)
    total, count = torch.zeros(()), 0
    for example in examples[:3]:
        batch = training_inputs([example], model.encoder.pad_token_id)
        ids, mask = batch["encoder_ids"], batch["encoder_mask"]
        span = model.fusion(model.encoder(ids, mask, model.fusion.mixer.layers), mask)
        words = [list(model.prompt.head_ids), [*model.prompt.tail_ids, *example.answer_ids]]
        head, rest = (model.lm.embed(torch.tensor(part)) for part in words)
        embeds = torch.cat([head, span.embeddings[0][span.mask[0]], rest])[None]
        logits = model.lm.model(inputs_embeds=embeds, use_cache=False).logits[0]
        num = len(example.answer_ids)
        targets = torch.tensor(example.answer_ids)
        total = total + torch.nn.functional.cross_entropy(logits[-num - 1 : -1].float(), targets, reduction="sum")
        count += num
    (total / count).backward()
    for name, tensor in model.lm.adapter.tensors.items():
        torch.testing.assert_close(found[name], tensor.grad, atol=1e-5, rtol=1e-3)


def test_gradient_checkpointing_repeats_the_adapter_s_dropout() -> None:
    gradients = []
    for checkpointing in (False, True):
        model, _, examples, _ = adapted(dropout=0.5, mixer_options={"dropout": 0.0})
        for tensor in model.lm.adapter.tensors.values():
            tensor.data += 0.1 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(2))
        model.train()
        model.gradient_checkpointing = checkpointing
        torch.manual_seed(4)
        model(**training_inputs(examples[:3], model.encoder.pad_token_id))["loss"].backward()
        gradients.append({name: p.grad.clone() for name, p in model.lm.adapter.tensors.items()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-4)


def test_development_figures_are_never_those_of_an_earlier_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _, examples, dev = adapted()
    pairs = []

    def both(model: FusedLM, *arguments: Any) -> dict[str, float]:
        found = development_metrics(model, *arguments)
        model.cache_head = False
        pairs.append((found["eval_loss"], development_metrics(model, *arguments)["eval_loss"]))
        model.cache_head = True
        return found

    monkeypatch.setattr(training, "development_metrics", both)
    train(model, examples, dev, tmp_path, adapter_learning_rate=0.05, **OPTIONS)
    assert len({round(found, 4) for found, _ in pairs}) == 3
    for found, expected in pairs:
        assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("step", [1, 7])
def test_interrupt_and_resume_give_the_weights_of_an_uninterrupted_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    options = {**OPTIONS, "seed": 5, "adapter_learning_rate": 0.02}
    model, _, examples, dev = adapted(dropout=0.2)
    train(model, examples, dev, tmp_path / "whole", **options)
    expected = hash_module(model)
    model, _, examples, dev = adapted(dropout=0.2)
    with monkeypatch.context() as patch:
        patch.setattr(training, "Schedule", InterruptAt)
        patch.setattr(InterruptAt, "step", step)
        with pytest.raises(TrainingInterruptedError):
            train(model, examples, dev, tmp_path / "parts", **options)
    model, _, examples, dev = adapted(dropout=0.2)
    torch.manual_seed(1234)
    train(model, examples, dev, tmp_path / "parts", **options)
    assert hash_module(model) == expected


def test_mixed_precision_trains(tmp_path: Path) -> None:
    model, plain, examples, dev = adapted(dropout=0.1)
    before, start = hash_module(plain), adapter_of(model)
    train(model, examples, dev, tmp_path, precision="bfloat16", adapter_learning_rate=0.02, **OPTIONS)
    assert hash_module(plain) == before
    assert all(p.dtype == torch.float32 and not torch.equal(p, start[n]) for n, p in model.lm.adapter.tensors.items())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[FusedLM, Path]:
    folder = tmp_path_factory.mktemp("adapted")
    model = train_run(small_recipe(write_task(folder / "data"), adapter=LORA), folder / "run")
    assert model is not None
    return model, folder / "run"


def test_a_run_with_an_adapter_is_saved_and_loaded_whole(run: tuple[FusedLM, Path]) -> None:
    model, folder = run
    lm = tiny_lm()
    before = hash_module(lm)
    loaded = FusedLM.from_pretrained(folder, encoder=tiny_encoder(), lm=lm)
    assert loaded.classify(TEXTS) == model.classify(TEXTS)
    assert loaded.generate(TEXTS[:2], max_new_tokens=5) == model.generate(TEXTS[:2], max_new_tokens=5)
    assert hash_module(lm) == before, "the LM that was given is not touched"
    merged = FusedLM.from_pretrained(folder, lm=lm, device="cpu", merged=True)
    for expected, found in zip(model.classify(TEXTS), merged.classify(TEXTS), strict=True):
        assert found.log_probabilities == pytest.approx(expected.log_probabilities, abs=1e-4)
    assert hash_module(lm) == before
    with pytest.raises(CheckpointError, match="merged"):
        merged.save_pretrained(folder.parent / "again")


def test_the_adapter_matters_to_answers_and_to_their_identity(run: tuple[FusedLM, Path], tmp_path: Path) -> None:
    model, folder = run
    config = read_config(folder)
    without = {key: value for key, value in config.items() if key != "adapter"}
    assert checkpoint.weights_identity(config) != checkpoint.weights_identity(without) == config["weights_sha256"]
    for file in ("fusion.safetensors", "config.json"):
        (tmp_path / file).write_bytes((folder / file).read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(without))
    alone = FusedLM.from_pretrained(tmp_path, device="cpu")
    first, second = (m.classify(TEXTS)[0].log_probabilities for m in (model, alone))
    assert max(abs(first[label] - second[label]) for label in first) > 1e-3


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_damaged_or_missing_adapter_is_found(run: tuple[FusedLM, Path], tmp_path: Path, name: str) -> None:
    import shutil

    shutil.copytree(run[1], tmp_path / "run")
    file = tmp_path / "run" / "adapter" / name
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(CheckpointError, match=rf"{name}.*damaged"):
        FusedLM.from_pretrained(tmp_path / "run", device="cpu")
    file.unlink()
    with pytest.raises(CheckpointError, match=name):
        FusedLM.from_pretrained(tmp_path / "run", device="cpu")


def test_eval_and_overwrite_through_the_run(tmp_path: Path) -> None:
    from glotfuse.runs.measuring import measure_run

    recipe = small_recipe(write_task(tmp_path / "data"), adapter=LORA, training={"epochs": 1})
    folder = tmp_path / "run"
    model = train_run(recipe, folder)
    assert model is not None
    report = measure_run(folder, recipe, (model.encoder, model.lm))  # as the command line does
    assert [r.num_examples for r in report.results] == [6, 2]
    train_run(small_recipe(tmp_path / "data", training={"epochs": 1}), folder, overwrite=True)
    assert not (folder / "adapter").exists()


def test_without_peft_a_run_stops_before_anything_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"glotfuse\[lora\]"):
        train_run(small_recipe(write_task(tmp_path / "data"), adapter=LORA), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_off_by_default_nothing_of_it_is_there(tmp_path: Path) -> None:
    model = train_run(small_recipe(write_task(tmp_path / "data"), training={"epochs": 1}), tmp_path / "run")
    assert model is not None
    assert model.lm.adapter is None
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        ".lock",
        "config.json",
        "fusion.safetensors",
        "log.jsonl",
        "recipe.json",
        "training.json",
    ]
    assert "adapter" not in read_config(tmp_path / "run")
