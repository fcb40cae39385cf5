"""Sharing on the hub: uploads a run or a model with its card. Loading is `FusedLM.from_pretrained`.

Uploaded are the config, the fusion's weights, a probe and an adapter if there are such, the reports and the card.
Training record, predictions and logs stay where they are: they name files of the machine and may hold texts.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glotfuse.errors import CheckpointError
from glotfuse.hub.card import card_of_run, check_folder, read_card
from glotfuse.model import checkpoint
from glotfuse.run_folder import ADAPTER, CARD, CONFIG, PROBE, REPORTS, WEIGHTS, read_config

if TYPE_CHECKING:
    from glotfuse.model.fused_model import FusedModel

_UPLOADED = (CONFIG, WEIGHTS, PROBE, REPORTS, "report-*.md", f"{ADAPTER}/*.json", f"{ADAPTER}/*.safetensors")


def push_run(
    folder: Path | str,
    repo_id: str,
    *,
    private: bool | None = None,
    licence: str | None = None,
    commit_message: str = "Upload glotfuse model",
) -> str:
    """Uploads a run's checkpoint, reports and card, and returns the repository's address; needs a hub token.

    Args:
        folder: The run.
        repo_id: `owner/name`; it is created if need be.
        private: Whether a new repository is private; None takes the account's default.
        licence: Identifier for the card, such as `apache-2.0`.
        commit_message: Of the upload.

    Raises:
        CheckpointError: The folder holds no whole checkpoint, or the hub refuses it or cannot be reached.
    """
    folder = Path(folder)
    check_folder(folder)
    config = read_config(folder)
    checkpoint.read_weights(folder, config["weights_sha256"])
    checkpoint.read_probe(folder, config)
    with tempfile.TemporaryDirectory() as temporary:
        staged = Path(temporary)
        for pattern in _UPLOADED:
            for file in folder.glob(pattern):
                target = staged / file.relative_to(folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
        card = read_card(folder) or str(card_of_run(folder, repo_id, licence))
        (staged / CARD).write_text(card, "utf8")
        return _upload(staged, repo_id, private, commit_message)


def push_model(model: FusedModel, repo_id: str, **options: Any) -> str:
    """Uploads a model from memory, with a card that knows no results; options as in `push_run`."""
    with tempfile.TemporaryDirectory() as temporary:
        checkpoint.save(model, Path(temporary))
        return push_run(temporary, repo_id, **options)


def _upload(folder: Path, repo_id: str, private: bool | None, commit_message: str) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    api = HfApi()
    try:
        repo = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo.repo_id, folder_path=folder, commit_message=commit_message)
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, OSError, ValueError) as error:
        lines = str(error).strip().splitlines()
        raise CheckpointError(
            f"Expected to upload to {repo_id!r} on the hub; it says: {lines[0] if lines else type(error).__name__} "
            "Log in with `hf auth login`, and check the name and the network."
        ) from error
    return str(repo)
