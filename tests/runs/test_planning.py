"""A plan: public models' known sizes, memory by arithmetic and by what torch remembers, steps as training has them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from glotfuse.backbones.bundled.store import cached_path
from glotfuse.errors import BackboneError, ConfigError
from glotfuse.model.assembly import build_fusion
from glotfuse.recipes.config import EncoderConfig, FusionConfig, LMConfig, PromptConfig, Recipe
from glotfuse.recipes.loading import load_recipe, recipe_from_dict
from glotfuse.run_folder import RECORD
from glotfuse.runs.planned_device import find_device
from glotfuse.runs.planned_memory import Lengths, LMPass, rows_within
from glotfuse.runs.planned_models import BUNDLED_CONFIGS, plan_encoder, plan_lm
from glotfuse.runs.planning import Plan, plan_run, steps_of
from glotfuse.runs.train import train_run
from paths import ROOT
from small_runs import small_recipe, small_values, write_task
from tiny import byte_encoder_folder, lm_folder, tiny_lm

CONFIGS = ROOT / "tests" / "fixtures" / "model_configs"
PAPER = sorted((ROOT / "recipes" / "paper").rglob("*.yaml"))
OTHERS = sorted(path for path in (ROOT / "recipes").rglob("*.yaml") if path not in PAPER)
GB = 10**9


def paper_plan(name: str, memory: int = 24 * GB, *overrides: str, **options: Any) -> Plan:
    path = ROOT / "recipes" / "paper" / f"{name}.yaml"
    folders = {"encoder_config": CONFIGS / path.parent.name, "lm_config": CONFIGS / "llama-3.2-1b-instruct"}
    return plan_run(load_recipe(path, list(overrides)), memory=memory, read_data=False, **folders, **options)


def held(plan: Plan) -> dict[str, int]:
    return {part.name: part.num_bytes for part in plan.peak.memory.held}


@pytest.mark.parametrize(
    ("folder", "published"), [("mt5-large", 564_446_720), ("mt5-xl", 1_669_958_656)], ids=["large", "xl"]
)
def test_an_encoder_decoder_counts_as_its_encoder_alone(folder: str, published: int) -> None:
    config = json.loads((CONFIGS / folder / "config.json").read_text())
    width, inner, heads = config["d_model"], config["d_ff"], config["num_heads"] * config["d_kv"]
    layer = 4 * width * heads + 3 * width * inner + 2 * width
    by_hand = config["vocab_size"] * width + config["num_layers"] * layer + width + 32 * config["num_heads"]
    found = plan_encoder(EncoderConfig(name=f"google/{folder}"), CONFIGS / folder)
    assert found.num_parameters == by_hand == published
    assert found.num_read > 1.7 * published  # the decoder is read too


def test_llama_has_its_published_size() -> None:
    assert plan_lm(LMConfig(name="x"), CONFIGS / "llama-3.2-1b-instruct").num_parameters == 1_235_814_400


def test_weights_take_their_dtypes_bytes_and_training_four_numbers_each() -> None:
    plan = paper_plan("mt5-xl/xnli-langbridge")
    parts = held(plan)
    assert parts["encoder weights"] == 2 * 1_669_958_656
    assert parts["LM weights"] == 2 * 1_235_814_400
    trained = 2048 * 2048 + 2048 + 2048  # projector, boundary
    assert plan.stages[-1].num_trained == trained
    assert parts["trained weights"] == 16 * trained
    whole = held(paper_plan("mt5-xl/xnli-langbridge", 24 * GB, "encoder.dtype=auto"))
    assert whole["encoder weights"] == 4 * 1_669_958_656  # its configuration names no dtype


def test_quantised_maps_take_their_bits_and_embeddings_none_of_them() -> None:
    maps = 16 * (2 * 2048 * 2048 + 2 * 2048 * 512 + 3 * 2048 * 8192)
    parts = held(paper_plan("mt5-xl/xnli-langbridge", 24 * GB, "lm.quantization=bitsandbytes-4bit"))
    assert parts["LM weights"] == int(2 * (1_235_814_400 - maps) + maps * 4.5 / 8)


def test_states_on_the_disk_are_two_bytes_per_number() -> None:
    stage = paper_plan("mt5-xl/amazon-reviews-langbridge").stages[-1]
    assert stage.cache_bytes == int(100_000 * 200 * 1 * 2048 * 2 * 1.1)  # 99,000 + 1,000 texts, one layer
    mixed = paper_plan("mt5-xl/amazon-reviews-global_softmax").stages[-1]
    assert mixed.cache_bytes == pytest.approx(24 * stage.cache_bytes, rel=1e-6)


@pytest.mark.parametrize("path", PAPER, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_recipe_of_the_paper_plans(path: Path) -> None:
    plan = paper_plan(f"{path.parent.name}/{path.stem}", device="cuda")
    assert plan.stages[-1].num_steps == 3 * math.ceil(math.ceil(plan.stages[-1].data.num_train / 4) / 2)
    assert not plan.stages[-1].data.exact
    assert plan.sentence().startswith("Fits: ")


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: path.stem)
def test_every_other_recipe_plans(path: Path) -> None:
    plan = plan_run(load_recipe(path), device="cpu", memory=64 * GB, read_data=False)
    assert plan.fits
    assert plan.encoder.num_parameters == 117_653_760
    assert plan.lm is None or plan.lm.num_parameters == 134_515_008


@pytest.mark.parametrize(("epochs", "accumulation", "num_train"), [(2, 1, 22), (1.5, 2, 22), (3, 3, 24)])
def test_steps_are_those_that_training_takes(tmp_path: Path, epochs: float, accumulation: int, num_train: int) -> None:
    data = write_task(tmp_path / "data", num_train=num_train)
    recipe = small_recipe(data, training={"epochs": epochs, "accumulation": accumulation})
    stage = plan_run(recipe).stages[-1]
    train_run(recipe, tmp_path / "run")
    record = json.loads((tmp_path / "run" / RECORD).read_text())
    assert stage.num_steps == record["num_steps"]
    assert stage.data.num_train == record["num_train_examples"]
    assert stage.data.exact


def test_cut_texts_and_tokens_are_those_that_training_counts(tmp_path: Path) -> None:
    data = write_task(tmp_path / "data")
    recipe = small_recipe(data, encoder={"max_length": 16}, training={"epochs": 1})
    found = plan_run(recipe).stages[-1]
    model = train_run(recipe, tmp_path / "run")
    record = json.loads((tmp_path / "run" / RECORD).read_text())
    assert found.data.num_cut == record["num_truncated"] > 0
    assert model is not None
    assert list(found.data.label_tokens.values()) == [len(model.prompt.answer_ids(word)) for word in model.labels]
    assert found.num_trained == sum(x.numel() for x in model.fusion.parameters())


@pytest.mark.parametrize("byte_fallback", [True, False])
def test_characters_of_several_bytes_are_counted_as_training_reads_them(tmp_path: Path, byte_fallback: bool) -> None:
    data = write_task(tmp_path / "data")
    path = data / "eng_Latn" / "train.tsv"
    path.write_text(path.read_text("utf8").replace("team", "ଦଳ"), "utf8")
    encoder = {"name": byte_encoder_folder(), "byte_fallback": byte_fallback, "max_length": 200}
    recipe = small_recipe(data, encoder=encoder, training={"epochs": 0})
    model = train_run(recipe, tmp_path / "run")
    assert model is not None
    texts = [line.split("\t")[0] for part in ("train", "dev") for line in
             (data / "eng_Latn" / f"{part}.tsv").read_text("utf8").splitlines()[1:]]  # fmt: skip
    expected = sum(len(example.encoder_ids) for example in model.prepare(texts))
    assert plan_run(recipe).stages[-1].data.num_tokens == expected
    assert any(model.encoder.tokenizer.unk_token_id in e.encoder_ids for e in model.prepare(texts)) != byte_fallback


def test_stages_and_adapter_are_planned_apart(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    recipe = small_recipe(
        write_task(tmp_path / "data"),
        adapter={"kind": "lora", "when": "before", "rank": 2, "epochs": 1},
        general={"objective": "reconstruction", "training": {"epochs": 1, "batch_size": 4}},
    )
    plan = plan_run(recipe)
    assert [stage.name for stage in plan.stages] == ["general", "adapter", "task"]
    model = train_run(recipe, tmp_path / "run")
    assert model is not None
    assert model.lm.adapter is not None
    assert plan.stages[1].num_trained == sum(x.numel() for x in model.lm.adapter.tensors.values())
    for stage in plan.stages:
        folder = tmp_path / "run" if stage.name == "task" else tmp_path / "run" / "stages" / stage.name
        assert stage.num_steps == json.loads((folder / RECORD).read_text())["num_steps"]


def _remembered(model: nn.Module, rows: int, length: int) -> int:
    """Bytes that torch itself keeps for the backward pass of a frozen LM, its weights apart."""
    own = {weights.untyped_storage().data_ptr() for weights in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    embeds = torch.randn(rows, length, model.get_input_embeddings().weight.shape[-1], requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.eval().requires_grad_(False)(inputs_embeds=embeds, use_cache=False, logits_to_keep=1)
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("family", ["llama", "qwen3", "opt", "gpt-neox"])
def test_activations_are_what_torch_remembers(family: str, tmp_path: Path) -> None:
    rows, length = 2, 64
    lm = plan_lm(LMConfig(name=lm_folder(family)))
    recipe = Recipe()
    fusion = build_fusion(FusionConfig(), PromptConfig(include_span=False), 3, 24, lm.embedding_size, None)
    lengths = Lengths(encoder=0, text=length - 1, head=0, answer=0)
    whole = LMPass(recipe, lm, "cpu", lengths, fusion, False)
    estimated = rows * length * lm.num_layers * whole.per_layer
    measured = _remembered(tiny_lm(family).model, rows, length)
    assert 0.75 < estimated / measured < 1.35


def test_rows_of_a_pass_keep_to_the_token_budget() -> None:
    assert rows_within(16, Lengths(encoder=100), 512) == 5
    assert rows_within(16, Lengths(encoder=100, text=100), 512) == 2
    assert rows_within(16, Lengths(encoder=600), 512) == 1
    assert rows_within(16, Lengths(encoder=600), None) == 16


def test_gradient_checkpointing_and_shorter_parts_need_less() -> None:
    name = "mt5-large/xnli-langbridge"
    plain = paper_plan(name).peak.memory.passes[1].num_bytes
    assert paper_plan(name, 24 * GB, "training.gradient_checkpointing=true").peak.memory.passes[1].num_bytes < plain
    assert paper_plan(name, 24 * GB, "training.max_tokens=200").peak.memory.passes[1].num_bytes < plain / 2


def test_measuring_reads_as_much_as_the_recipe_lets_the_trained_model_read() -> None:
    name = "mt5-large/xnli-transformer_softmax"
    short, long = (paper_plan(name, 24 * GB, f"evaluation.max_length={n}").peak.memory.passes for n in (200, 512))
    assert long[-1].num_bytes > 2 * short[-1].num_bytes
    assert long[:-1] == short[:-1]


def test_processes_share_the_batch_and_a_cpus_memory(tmp_path: Path) -> None:
    data = write_task(tmp_path / "data")
    alone, both = plan_run(small_recipe(data)), plan_run(small_recipe(data), processes=2)
    assert both.stages[-1].num_steps == alone.stages[-1].num_steps
    assert both.needed > 1.5 * alone.needed
    with pytest.raises(ConfigError, match="3 processes"):
        plan_run(small_recipe(data), processes=3)


def test_on_a_cpu_a_decoder_is_in_memory_while_it_is_read() -> None:
    recipe = Recipe(encoder=EncoderConfig(name="google/mt5-xl", max_length=64))
    plan = plan_run(recipe, device="cpu", memory=64 * GB, encoder_config=CONFIGS / "mt5-xl", read_data=False)
    assert plan.needed == 4 * plan.encoder.num_read > plan.peak.memory.total


def test_what_does_not_fit_gets_settings_with_which_it_does() -> None:
    wasteful = ("encoder.dtype=auto", "evaluation.max_length=200")
    plan = paper_plan("mt5-xl/xnli-transformer_softmax", 8 * GB, *wasteful)
    assert not plan.fits
    settings = [setting for setting, _ in plan.advice]
    assert "encoder.dtype=bfloat16" in settings
    again = paper_plan("mt5-xl/xnli-transformer_softmax", 8 * GB, *wasteful, *settings)
    assert again.fits
    assert again.needed == plan.advice[-1][1]
    assert "still too much" in paper_plan("mt5-xl/xnli-transformer_softmax", GB).sentence()


def test_what_cannot_be_read_is_said_and_planned_without(tmp_path: Path) -> None:
    values = small_values(tmp_path / "nowhere", encoder={"max_length": 100_000})
    plan = plan_run(recipe_from_dict(values))
    assert plan.stages[-1].num_steps is None
    assert any("Data of files not read" in remark and "task.path" in remark for remark in plan.remarks)
    assert any("Training would refuse encoder.max_length" in remark for remark in plan.remarks)


def test_a_model_without_configuration_is_a_clear_error() -> None:
    with pytest.raises(BackboneError, match="--encoder-config FOLDER"):
        plan_run(Recipe(encoder=EncoderConfig(name="google/mt5-xl")), read_data=False)
    with pytest.raises(BackboneError, match="causal LM"):
        plan_run(Recipe(), lm_config=CONFIGS / "mt5-large", read_data=False)
    with pytest.raises(ConfigError, match=r"config\.json"):
        plan_run(Recipe(), encoder_config=CONFIGS, read_data=False)


def test_a_hub_model_is_planned_from_the_hubs_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "0" * 40
    place = tmp_path / "models--google--mt5-large"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(commit)
    (place / "snapshots" / commit).mkdir(parents=True)
    (place / "snapshots" / commit / "config.json").write_text((CONFIGS / "mt5-large" / "config.json").read_text())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert plan_encoder(EncoderConfig(name="google/mt5-large")).num_parameters == 564_446_720


def test_a_device_that_is_not_here_needs_its_memory() -> None:
    assert find_device("cpu").num_bytes > GB
    assert find_device("auto", 24 * GB).kind == "cuda"
    assert find_device("auto", 24 * GB, chosen=True).kind in ("cpu", "cuda", "mps")
    with pytest.raises(ConfigError, match="--memory"):
        find_device("xpu")


def test_an_epochs_last_step_may_be_smaller() -> None:
    assert steps_of(10, 4, 1, 1) == 3
    assert steps_of(10, 4, 2, 3) == 6
    assert steps_of(10, 4, 8, 3) == 3
    assert steps_of(10, 4, 1, 0) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", BUNDLED_CONFIGS)
def test_bundled_configurations_are_those_of_the_converted_folders(name: str) -> None:
    folder = cached_path(name)
    assert folder is not None
    written = json.loads((folder / "config.json").read_text())
    assert {key: written[key] for key in BUNDLED_CONFIGS[name]} == BUNDLED_CONFIGS[name]
