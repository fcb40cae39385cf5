"""Run and comparison folders as training, evaluation and comparing leave them, with made-up predictions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from glotfuse.evaluation.metrics import INVALID, accuracy_interval, language_result
from glotfuse.evaluation.report import EvaluationReport
from glotfuse.languages.names import is_low_resource, name_of
from glotfuse.recipes.config import Recipe
from glotfuse.recipes.loading import to_dict
from glotfuse.tasks import get_task

SURENESS = {
    "eng_Latn": 0.95, "sin_Sinh": 0.72, "tam_Taml": 0.75, "urd_Arab": 0.7, "khm_Khmr": 0.74, "amh_Ethi": 0.62,
    "mya_Mymr": 0.68, "yor_Latn": 0.45,
}  # fmt: skip
FAMILIES = {
    "eng": "Indo-European", "sin": "Indo-European", "tam": "Dravidian", "urd": "Indo-European",
    "khm": "Austroasiatic", "amh": "Afro-Asiatic", "mya": "Sino-Tibetan", "yor": "Atlantic-Congo",
}  # fmt: skip


def write_run(
    folder: Path,
    rows: Mapping[str, Sequence[tuple[Mapping[str, str], str]]] | None = None,
    labels: Sequence[str] | None = None,
    record: Mapping[str, Any] | None = None,
    name: str = "transformer_softmax",
    metadata: Mapping[str, Any] | None = None,
    unknown: Mapping[str, float | None] | None = None,
) -> EvaluationReport:
    """A finished and measured run. `rows` are fields and right label by language; None takes the packaged data.

    `unknown` are rates of unknown tokens by language; in the others nobody counted them.
    """
    task = get_task("quickstart")
    if rows is None:
        rows = {code: [(e.fields, e.label or "") for e in task.load("test", code).examples] for code in SURENESS}
    labels = list(labels or task.labels)
    random = np.random.default_rng(7)
    results = []
    for code, examples in rows.items():
        gold, predicted, lines = [], [], []
        for number, (fields, right) in enumerate(examples, start=2):
            chances = random.dirichlet(np.full(len(labels), 0.4)) * 0.9
            if random.random() < SURENESS.get(code, 0.6):
                chances[labels.index(right)] += 1.0
            chances /= chances.sum()
            answer = INVALID if random.random() < 0.01 else int(chances.argmax())
            probabilities = dict(zip(labels, chances.round(6).tolist(), strict=True))
            gold.append(labels.index(right))
            predicted.append(answer)
            lines.append({
                "run": "0123456789abcdef", "source": f"data/{code}.tsv", "row": number, **fields, "gold": right,
                "predicted": None if answer == INVALID else labels[answer],
                "probabilities": None if answer == INVALID else probabilities,
                "truncated": number % 40 == 0,
            })  # fmt: skip
        path = folder / "predictions" / "test" / f"{code}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), "utf8")
        cut = sum(line["truncated"] for line in lines)
        rate = (unknown or {}).get(code)
        results.append(language_result(code, gold, predicted, labels, num_truncated=cut, unknown_rate=rate))
    found = {"encoder": "bundled:e5-small", "lm": "bundled:smollm2-135m", "skipped_rows": {}, **(metadata or {})}
    mixer = {"name": "transformer_softmax", "num_heads": 1}
    report = EvaluationReport(name, "quickstart", "test", mixer, tuple(labels), tuple(results), ("lao_Laoo",), found)
    report.save(folder, "report-test")
    recipe = json.loads(json.dumps(to_dict(Recipe())))
    _write(folder / "recipe.json", recipe)
    _write(folder / "config.json", config(labels))
    _write(folder / "training.json", {**training_record(recipe), **(record or {})})
    return report


def config(labels: Sequence[str]) -> dict[str, Any]:
    """config.json of a checkpoint."""
    backbone = {"revision": None, "architecture": "BertModel", "hidden_size": 384}
    return {
        "format": 1,
        "encoder": {"name": "bundled:e5-small", "sha256": "9d7f5c2c" * 8, **backbone, "prefix": "", "src_lang": None},
        "lm": {
            **backbone,
            "name": "bundled:smollm2-135m",
            "sha256": "b59e8040" * 8,
            "architecture": "LlamaForCausalLM",
        },
        "weights_sha256": "0a381d2f" * 8,
        "prompt": {"style": "chat", "instruction": None},
        "max_length": 256,
        "template": "{text}",
        "instruction": "Which topic is this text about? Answer with one of: {labels}.",
        "labels": list(labels),
        "task": "quickstart",
    }


def training_record(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """training.json of a run of 60 steps."""
    random = np.random.default_rng(3)
    log: list[dict[str, float]] = []
    for step in range(1, 61):
        loss = 2.2 * np.exp(-step / 15) + 0.15 + 0.1 * random.random()
        log.append({"loss": float(loss), "grad_norm": 2.0, "learning_rate": 1e-3, "epoch": step / 20, "step": step})
        if step % 10 == 0:
            accuracy = 0.9 - 0.6 * float(np.exp(-step / 18))
            log.append({"eval_loss": float(loss) + 0.1, "eval_accuracy": accuracy, "epoch": step / 20, "step": step})
    part = {"split": "train", "language": "eng_Latn", "rows": 322, "kept": 320, "empty": 1, "unknown_label": 0}
    part |= {"missing_label": 0, "malformed": 1, "duplicates": 2, "problems": ["line 17: expected 2 cells, found 3"]}
    return {
        "recipe": recipe,
        "data": [
            {"source": "data/eng_Latn/train.tsv", **part},
            {"source": "data/eng_Latn/dev.tsv", **part, "split": "dev", "rows": 64, "kept": 64, "problems": []},
        ],
        "num_train_examples": 320,
        "num_truncated": 4,
        "warm_start": {"num_tokens": 9120, "explained_variance": 0.57},
        "num_steps": 60,
        "best_step": 50,
        "best_development_figure": 0.31,
        "seconds": 273.4,
        "versions": {"glotfuse": "0.1.0", "torch": "2.13.0", "python": "3.11.7"},
        "log": log,
    }


def write_comparison(
    folder: Path, recipes: Sequence[str] = ("transformer_softmax", "global_softmax", "mean", "last", "LM alone"),
    codes: Sequence[str] = tuple(SURENESS), leaks: Sequence[Mapping[str, Any]] = (),
    leaks_checked: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """A comparison of three seeds each, in the layout of comparison.json."""
    random = np.random.default_rng(11)
    strength = {name: 0.12 - 0.06 * number for number, name in enumerate(recipes)}
    languages = []
    for code in codes:
        scores = {}
        for name in recipes:
            chance = min(max(SURENESS.get(code, 0.6) + strength[name] - 0.05, 0.05), 0.99)
            seeds = (random.binomial(204, chance, size=3) / 204).round(4).tolist()
            accuracy = interval(round(sum(seeds) / 3 * 204), 204)
            scores[name] = {"accuracy": accuracy, "macro_f1": {k: v * 0.97 for k, v in accuracy.items()}}
            scores[name]["per_seed"] = seeds
        script = code.partition("_")[2]
        language = {"code": code, "name": name_of(code), "script": script, "family": FAMILIES.get(code[:3])}
        language |= {"low_resource": is_low_resource(code), "seen": None if code == "yor_Latn" else True}
        languages.append({**language, "num_examples": 204, "scores": scores})
    groups = {
        "all": list(codes),
        "all but English": [code for code in codes if code != "eng_Latn"],
        "low-resource": [code for code in codes if is_low_resource(code)],
    }
    data = {
        "format": 1, "task": "sib200", "split": "test", "labels": ["sports", "politics", "health"],
        "metadata": {"versions": {"glotfuse": "0.1.0"}, "hardware": "2 CPU cores", "leaks_checked": leaks_checked},
        "recipes": [
            {"name": name, "seeds": [0, 1, 2], "runs": [f"runs/{name}/seed{s}" for s in range(3)],
             "seconds": [271.0, 268.4, 270.2], "trained": name != "LM alone"}
            for name in recipes
        ],
        "languages": languages,
        "groups": [
            {"title": title, "languages": members, "scores": {name: mean(languages, members, name) for name in recipes}}
            for title, members in groups.items() if members
        ],
        "pairs": [
            pair(languages, first, second, random)
            for number, first in enumerate(recipes) for second in recipes[number + 1 :]
        ],
    }  # fmt: skip
    data["leaks"] = list(leaks)
    _write(folder / "comparison.json", data)
    return data


def interval(num_correct: int, num_examples: int) -> dict[str, float]:
    """Value, low and high of an accuracy."""
    found = accuracy_interval(num_correct, num_examples)
    return {"value": found.value, "low": found.low, "high": found.high}


def mean(languages: Sequence[Any], members: Sequence[str], name: str) -> dict[str, Any]:
    """Scores of a group."""
    values = [row["scores"][name]["accuracy"]["value"] for row in languages if row["code"] in members]
    value = sum(values) / len(values)
    return {"accuracy": {"value": value, "low": value - 0.02, "high": value + 0.02}, "macro_f1": value * 0.97}


def pair(languages: Sequence[Any], first: str, second: str, random: np.random.Generator) -> dict[str, Any]:
    """Two recipes compared."""
    rows = []
    for row in languages:
        gap = row["scores"][first]["accuracy"]["value"] - row["scores"][second]["accuracy"]["value"]
        p = float(np.exp(-((gap / 0.03) ** 2)))
        rows.append({"code": row["code"], "difference": gap, "low": gap - 0.06, "high": gap + 0.06, "p_value": p})
        rows[-1] |= {"p_adjusted": min(1.0, p * len(languages)), "sign_test_p": min(1.0, p * 1.1)}
        rows[-1]["effect_size"] = 2.1 * gap
    gap = sum(row["difference"] for row in rows) / len(rows)
    average = {"title": "all but English", "difference": gap, "low": gap - 0.02, "high": gap + 0.02, "p_value": 0.0004}
    points = f"{abs(gap) * 100:.1f} points (95% CI {(gap - 0.02) * 100:.1f} to {(gap + 0.02) * 100:.1f})"
    statement = f"{first} beats {second} by {points} on {len(rows)} languages; better in {len(rows) - 1}, worse in 1."
    groups = [average, {**average, "title": "low-resource", "difference": gap + 0.01, "p_value": 0.031}]
    return {"first": first, "second": second, "statement": statement, "average": average, "groups": groups,
            "languages": rows}  # fmt: skip


def _write(path: Path, values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, ensure_ascii=False, indent=1), "utf8")
