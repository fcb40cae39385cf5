"""The hub: a run that was pushed is loaded by its id with the same answers; what is missing is said."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from built import built
from fake_hub import FakeHub
from glotfuse.errors import CheckpointError
from glotfuse.hub import push as hub
from glotfuse.model.locating import locate
from glotfuse.run_folder import CONFIG, WEIGHTS
from glotfuse.training.probe_fitting import ProbeRows, fit_probe
from tiny import TEXTS

ROUND_TRIP = """
import sys
from typer.testing import CliRunner
from glotfuse.cli.main import app
from glotfuse import FusedLM
from glotfuse.model.locating import locate
import huggingface_hub.constants

folder, name, *texts = sys.argv[1:]
result = CliRunner().invoke(app, ["push", folder, name, "--private", "--license", "mit"])
print(result.output.strip(), result.exception)
print([answer.probabilities for answer in FusedLM.from_pretrained(name, device="cpu").classify(texts)])
huggingface_hub.constants.HF_HUB_OFFLINE = True
print(sorted(file.name for file in locate(name).iterdir()))
"""


@pytest.fixture
def fake() -> Iterator[FakeHub]:
    served = FakeHub()
    yield served
    served.close()


def test_a_pushed_run_is_loaded_by_its_id_with_the_same_answers(fake: FakeHub, tmp_path: Path) -> None:
    model = built()
    examples = model.prepare(TEXTS * 2)
    labels = [model.labels[number % len(model.labels)] for number in range(len(examples))]
    model.probe, _ = fit_probe(model, ProbeRows(examples, labels), None, seed=0)
    model.save_pretrained(tmp_path / "run")
    (tmp_path / "run" / "predictions").mkdir()
    (tmp_path / "run" / "predictions" / "secret.jsonl").write_text("private text")
    environment = {
        **os.environ,
        "HF_ENDPOINT": fake.endpoint,
        "HF_HOME": str(tmp_path / "home"),
        "HF_TOKEN": "hf_test",
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1",
    }
    # a process of its own, for the hub's address and cache are read when its library is imported
    arguments = [sys.executable, "-c", ROUND_TRIP, str(tmp_path / "run"), "someone/topics", *TEXTS]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    pushed, answers, cached = done.stdout.strip().splitlines()
    assert pushed == f"{fake.endpoint}/someone/topics None"
    assert answers == str([answer.probabilities for answer in model.classify(TEXTS)])
    assert cached == "['config.json', 'fusion.safetensors', 'probe.safetensors']"  # found again offline
    assert fake.private == {"someone/topics": True}
    files = fake.files["someone/topics"]
    assert sorted(files) == ["README.md", "config.json", "fusion.safetensors", "probe.safetensors"]
    card = files["README.md"].decode()
    assert yaml.safe_load(card.split("---")[1])["license"] == "mit"
    assert 'from_pretrained("someone/topics")' in card
    assert str(tmp_path) not in card


def snapshot(monkeypatch: pytest.MonkeyPatch, result: Any) -> None:
    import huggingface_hub

    def download(*_: Any, **__: Any) -> str:
        if isinstance(result, BaseException):
            raise result
        return str(result)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)


def test_offline_without_a_cached_copy_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants
    from huggingface_hub.errors import LocalEntryNotFoundError

    snapshot(monkeypatch, LocalEntryNotFoundError("nothing cached"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        CheckpointError, match=r"nothing of someone/topics at v2 in the hub cache.*HF_HUB_OFFLINE is set"
    ):
        locate("someone/topics", "v2")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(CheckpointError, match="the hub cannot be reached: nothing cached"):
        locate("someone/topics")


def test_a_partial_cache_or_another_repository_names_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / CONFIG).write_text("{}")
    snapshot(monkeypatch, tmp_path)
    with pytest.raises(
        CheckpointError, match=r"Expected fusion\.safetensors in the hub cache's copy.*found config\.json"
    ):
        locate("someone/topics")
    (tmp_path / WEIGHTS).write_bytes(b"")
    assert locate("someone/topics") == tmp_path


def test_local_folders_never_ask_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    snapshot(monkeypatch, AssertionError("asked"))
    for name in (tmp_path, str(tmp_path), "./some/folder", "runs", "a/b/c"):
        assert locate(name) == Path(name)


def test_a_damaged_run_is_not_pushed(tmp_path: Path) -> None:
    built().save_pretrained(tmp_path)
    weights = tmp_path / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="damaged or from another run"):
        hub.push_run(tmp_path, "someone/topics")


def test_what_the_hub_refuses_is_said() -> None:
    model = built()
    with pytest.raises(CheckpointError, match=r"Expected to upload to 'someone/topics'.*offline"):
        model.push_to_hub("someone/topics")
    with pytest.raises(CheckpointError, match="Expected to upload to 'no such name!'"):
        model.push_to_hub("no such name!")
