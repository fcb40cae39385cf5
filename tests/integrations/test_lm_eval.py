"""Fused models in lm-evaluation-harness: scores are the model's own, and the harness's definitions run as they are."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch.nn import functional as F

from paths import ROOT

pytest.importorskip("lm_eval")

import lm_eval.tasks
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model, model_registry
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from glotfuse import FusedLM, get_task
from glotfuse.errors import ConfigError, PromptError
from glotfuse.integrations import lm_eval as bridge
from glotfuse.integrations.lm_eval_model import GlotfuseLM
from glotfuse.recipes.loading import recipe_from_dict
from glotfuse.runs.measuring import measure_run
from glotfuse.runs.train import train_run
from small_runs import small_recipe, write_task
from textbook_lm import textbook_logits
from tiny import TEXTS, tiny_model

EXAMPLES = ROOT / "examples" / "lm_eval"
XNLI = Path(lm_eval.tasks.__file__).parent / "xnli"


@pytest.fixture(scope="module")
def model() -> FusedLM:
    return tiny_model()


@pytest.fixture(autouse=True)
def _own_data_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")


def request(kind: str, *arguments: Any, document: int = 0) -> Instance:
    return Instance(kind, {}, arguments, 0, metadata=("task", document, 1))


def asked(lm: GlotfuseLM, *pairs: tuple[str, str]) -> list[tuple[float, bool]]:
    requests = [request("loglikelihood", *pair, document=i) for i, pair in enumerate(pairs)]
    return lm.loglikelihood(requests, disable_tqdm=True)


@torch.no_grad()
def textbook(model: FusedLM, text: str, answer: str) -> float:
    ids = model.prompt.answer_ids(answer)
    logits = textbook_logits(model, model.prepare([text])[0], ids)
    return -float(F.cross_entropy(logits, torch.tensor(ids), reduction="sum"))


def evaluated(lm: GlotfuseLM, task: dict[str, Any] | str, *folders: Path, **options: Any) -> dict[str, Any]:
    manager = TaskManager(include_defaults=False, include_path=[str(folder) for folder in folders] or None)
    return simple_evaluate(model=lm, tasks=[task], task_manager=manager, log_samples=True, bootstrap_iters=0, **options)


def test_the_harness_knows_the_model_by_its_name() -> None:
    bridge.register()
    bridge.register()
    assert get_model("glotfuse") is GlotfuseLM


def test_the_command_is_the_harness_with_one_more_model(monkeypatch: pytest.MonkeyPatch) -> None:
    known = []
    monkeypatch.setattr("lm_eval.__main__.cli_evaluate", lambda: known.extend(model_registry.keys()))
    bridge.main()
    assert "glotfuse" in known


def test_without_the_harness_the_command_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval.models", None)
    with pytest.raises(SystemExit, match=r"pip install 'glotfuse\[eval\]'"):
        bridge.main()


@pytest.mark.parametrize("batch_size", [1, 3, "auto"])
def test_a_continuation_is_scored_as_the_answer_to_its_context(model: FusedLM, batch_size: int | str) -> None:
    pairs = [(text, answer) for text in TEXTS for answer in (" sports", "sports", "health news", "a: b")]
    pairs = pairs[::2] + pairs[1::2]
    found = asked(GlotfuseLM(model, batch_size=batch_size), *pairs)
    assert [value for value, _ in found] == pytest.approx([textbook(model, *pair) for pair in pairs], abs=1e-4)
    assert found[pairs.index((TEXTS[0], " sports"))] != found[pairs.index((TEXTS[0], "sports"))]


def test_greedy_is_what_the_model_would_say(model: FusedLM) -> None:
    lm = GlotfuseLM(model)
    said = lm.generate_until([request("generate_until", TEXTS[0], {"max_gen_toks": 3})], disable_tqdm=True)[0]
    ids = model.prompt.answer_ids(said)
    assert asked(lm, (TEXTS[0], said))[0][1] or len(ids) != 3, "tokens of a text need not be those that were said"
    assert not asked(lm, (TEXTS[0], said + " zebra"))[0][1]


def test_an_instruction_takes_the_place_of_the_trained_one(model: FusedLM) -> None:
    pair = (TEXTS[0], "sports")
    trained, other, none = (asked(GlotfuseLM(model, instruction=i), pair)[0] for i in (None, "Name a topic.", ""))
    assert trained[0] == pytest.approx(textbook(model, *pair), abs=1e-4)
    assert len({trained[0], other[0], none[0]}) == 3


def test_generation_stops_before_the_stop_string(model: FusedLM) -> None:
    whole = model.generate(TEXTS, max_new_tokens=12)
    stop = whole[0][2:5]
    options = [{"until": [stop], "max_gen_toks": 12}, {"until": stop, "max_gen_toks": 12, "temperature": 0.0}]
    requests = [request("generate_until", text, options[i % 2]) for i, text in enumerate(TEXTS)]
    found = GlotfuseLM(model, batch_size=2).generate_until(requests, disable_tqdm=True)
    assert found == [text.split(stop)[0].strip() if stop in text else text for text in whole]
    assert found[0] != whole[0]


def test_sampling_follows_the_task(model: FusedLM) -> None:
    options = {"until": [], "max_gen_toks": 12, "do_sample": True, "temperature": 2.0}
    lm = GlotfuseLM(model, batch_size=4)
    texts = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        texts.append(lm.generate_until([request("generate_until", TEXTS[0], options)], disable_tqdm=True))
    assert texts[0] == texts[1] != texts[2]


def test_what_has_no_meaning_is_refused(model: FusedLM) -> None:
    lm = GlotfuseLM(model)
    with pytest.raises(PromptError, match="multiple_choice, loglikelihood or generate_until"):
        lm.loglikelihood_rolling([request("loglikelihood_rolling", "A text.")])
    with pytest.raises(PromptError, match="doc_to_text"):
        asked(lm, ("", "A text alone."))
    with pytest.raises(PromptError, match="empty one"):
        asked(lm, (TEXTS[0], ""))
    with pytest.raises(PromptError, match="empty one"):
        lm.generate_until([request("generate_until", " ", {"until": []})])
    mixed = [request("loglikelihood", *pair) for pair in ((TEXTS[0], "a"), (TEXTS[0], "b"), ("", "a"), ("", "b"))]
    with pytest.raises(PromptError, match="acc_mutual_info"):
        lm.loglikelihood(mixed)
    with pytest.raises(ConfigError, match="Did you mean 'language'"):
        GlotfuseLM(model, languag="swh_Latn")
    with pytest.raises(ConfigError, match="batch size"):
        GlotfuseLM(model, batch_size="many")


def test_a_long_text_loses_its_beginning_and_keeps_its_question(model: FusedLM) -> None:
    long = "Filler words stand here. " * 60 + "The team won the match."
    cut = GlotfuseLM(model, max_length=12)
    kept = cut._tokenize([(long, None)])[0]
    assert kept.truncated
    assert len(kept.encoder_ids) <= 12
    whole = model.encoder.tokenize([long], None)[0]
    assert kept.encoder_ids[-6:] == whole[-6:]
    head = GlotfuseLM(model, max_length=12, truncation="end")._tokenize([(long, None)])[0]
    assert head.encoder_ids[:6] == whole[:6]


def test_a_language_can_be_given_for_each_task() -> None:
    nllb = tiny_model("nllb")
    by_task = GlotfuseLM(nllb, language={"task": "sin"})
    pair = ("ක්‍රීඩකයා ගෝලයක් ලබා ගත්තේය.", "sports")
    assert asked(by_task, pair) == asked(GlotfuseLM(nllb, language="sin"), pair)
    with pytest.raises(ConfigError, match="language for the task"):
        asked(GlotfuseLM(nllb, language={"other": "sin"}), pair)


def test_turns_of_a_conversation_become_one_text(model: FusedLM) -> None:
    turns = [("system", "Be brief."), ("user", "One?"), ("assistant", "1"), ("user", "Two?")]
    history = [{"role": role, "content": content} for role, content in turns]
    assert GlotfuseLM(model).apply_chat_template(history) == "Be brief.\n\nOne?\n1\n\nTwo?"


def test_accuracy_is_that_of_glotfuse_eval_to_the_example(tmp_path: Path) -> None:
    recipe = small_recipe(write_task(tmp_path / "data"), training={"epochs": 1})
    train_run(recipe, tmp_path / "run")
    device = None if torch.cuda.is_available() else "cuda:0"  # what the harness says by default
    lm = GlotfuseLM(str(tmp_path / "run"), device=device, batch_size=4, truncation="end")
    for result, with_template in zip(measure_run(tmp_path / "run", recipe).results, (False, True), strict=True):
        path = tmp_path / "run" / "predictions" / "test" / f"{result.language}.jsonl"
        rows = [json.loads(line) for line in path.read_text("utf8").splitlines()]
        labels = list(rows[0]["probabilities"])
        data = str(tmp_path / "data" / result.language / "test.tsv")
        task = {
            "task": "topics",
            "dataset_path": "csv",
            "dataset_kwargs": {"data_files": {"test": data}, "sep": "\t"},
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_text": "{{text}}",
            "doc_to_target": "label",
            "doc_to_choice": labels,
            **({} if with_template else {"target_delimiter": ""}),
            "metric_list": [{"metric": "acc"}],
        }
        found = evaluated(lm, task, apply_chat_template=with_template)
        samples = sorted(found["samples"]["topics"], key=lambda sample: sample["doc_id"])
        scores = [[float(answer[0]) for answer in sample["filtered_resps"]] for sample in samples]
        assert [labels[row.index(max(row))] for row in scores] == [row["predicted"] for row in rows]
        for row, expected in zip(scores, rows, strict=True):
            probabilities = torch.tensor(row).softmax(0).tolist()
            assert probabilities == pytest.approx(list(expected["probabilities"].values()), abs=1e-4)
        assert found["results"]["topics"]["acc,none"] == pytest.approx(result.accuracy.value)


def test_the_harness_xnli_runs_by_its_own_definition(model: FusedLM, tmp_path: Path) -> None:
    words = {"Yes": 0, "Also": 1, "No": 2}
    rows = [
        {"premise": f"The team won match {i}", "hypothesis": text, "label": i % 3} for i, text in enumerate(TEXTS[:4])
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf8")
    group = yaml.safe_load((EXAMPLES / "xnli_local.yaml").read_text("utf8"))
    task = {**group["task"][0], "task": "xnli_en"}
    task["dataset_kwargs"] = {"data_files": {"validation": str(tmp_path / "rows.jsonl")}}
    found = evaluated(GlotfuseLM(model, batch_size=2), {**group, "task": [task]}, XNLI)
    samples = sorted(found["samples"]["xnli_en"], key=lambda sample: sample["doc_id"])
    assert samples[0]["arguments"][0] == ("", f" {rows[0]['premise']}, right? Yes, {TEXTS[0]}")
    hits = 0
    for row, sample in zip(rows, samples, strict=True):
        text = f"{row['premise']}, right?"
        expected = [textbook(model, text, f"{word}, {row['hypothesis']}") for word in words]
        assert [float(answer[0]) for answer in sample["filtered_resps"]] == pytest.approx(expected, abs=1e-3)
        hits += expected.index(max(expected)) == row["label"]
    assert found["results"]["xnli_en"]["acc,none"] == hits / len(rows)


def test_the_example_has_the_languages_and_label_words_of_the_quickstart() -> None:
    task = get_task("quickstart")
    languages = task.languages("test")
    group = load_yaml(EXAMPLES / "quickstart.yaml")
    assert sorted(group["task"]) == sorted(f"quickstart_{language}" for language in languages)
    for language in languages:
        own = load_yaml(EXAMPLES / "quickstart" / f"{language}.yaml")
        assert own["task"] == f"quickstart_{language}"
        assert own["dataset_kwargs"]["data_files"]["test"] == f"data/{language}.jsonl"
        assert own["doc_to_choice"] == task.labels
        assert own["metadata"]["model_class"] is GlotfuseLM, "so that the harness's own command knows the model"


@pytest.mark.slow
def test_the_quickstart_in_the_harness_is_that_of_glotfuse_eval(tmp_path: Path) -> None:
    languages = ["eng_Latn", "sin_Sinh", "yor_Latn"]
    recipe = recipe_from_dict(
        {
            "task": {"max_train_examples": 48, "max_dev_examples": 8},
            "training": {"epochs": 1},
            "evaluation": {"languages": languages},
        }
    )
    train_run(recipe, tmp_path / "run")
    report = measure_run(tmp_path / "run", recipe)
    task, lm = get_task("quickstart"), GlotfuseLM(str(tmp_path / "run"), batch_size=16)
    for result in report.results:
        rows = [{**row.fields, "label": row.label} for row in task.load("test", result.language)]
        data = tmp_path / f"{result.language}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf8")
        own = load_yaml(EXAMPLES / "quickstart" / f"{result.language}.yaml")
        own["dataset_kwargs"] = {"data_files": {"test": str(data)}}
        found = evaluated(lm, own)
        path = tmp_path / "run" / "predictions" / "test" / f"{result.language}.jsonl"
        predicted = [json.loads(line)["predicted"] for line in path.read_text("utf8").splitlines()]
        samples = sorted(found["samples"][own["task"]], key=lambda sample: sample["doc_id"])
        scores = [[float(answer[0]) for answer in sample["filtered_resps"]] for sample in samples]
        assert [task.labels[row.index(max(row))] for row in scores] == predicted
        assert found["results"][own["task"]]["acc,none"] == pytest.approx(result.accuracy.value)
