"""Where a checkpoint is: a local folder, the package, or the hub cache, filled from the hub if need be."""

from __future__ import annotations

from pathlib import Path

from glotfuse.errors import CheckpointError, did_you_mean
from glotfuse.run_folder import CONFIG, WEIGHTS

BUNDLED = "bundled:"
FUSIONS = Path(__file__).parent / "fusions"


def bundled_fusions() -> list[str]:
    """Names of the fusions in the package, such as `bundled:e5-small+smollm2-135m`."""
    return sorted(BUNDLED + folder.name for folder in FUSIONS.glob("*") if (folder / CONFIG).exists())


def locate(name: Path | str, revision: str | None = None) -> Path:
    """The folder of a checkpoint.

    Args:
        name: Local folder, hub id, or a fusion in the package, as `bundled_fusions` lists them.
        revision: Branch, tag or commit on the hub.

    Raises:
        CheckpointError: The package or the hub does not have it, or the hub cannot be asked and the cache has nothing
            or only a part.
    """
    if str(name).startswith(BUNDLED):
        if name not in (known := bundled_fusions()):
            raise CheckpointError(
                f"Expected a fusion in the package out of {', '.join(known)}; found {str(name)!r}."
                f"{did_you_mean(str(name), known)}"
            )
        return FUSIONS / str(name).removeprefix(BUNDLED)
    folder = Path(name)
    if folder.is_dir() or isinstance(name, Path) or name.count("/") != 1 or name.startswith((".", "/", "~")):
        return folder
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = name if revision is None else f"{name} at {revision}"
    try:
        found = Path(snapshot_download(name, revision=revision, allow_patterns=["*.safetensors", "*.json"]))
    except LocalEntryNotFoundError as error:
        cause = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"the hub cannot be reached: {_cause(error)}"
        raise CheckpointError(
            f"Expected a checkpoint folder or a hub id; found no folder {name!r} and nothing of {wanted} in "
            f"the hub cache, and {cause}. Correct the path, or go online once to fetch it."
        ) from None
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise CheckpointError(
            f"Expected a checkpoint folder or a hub id; found no folder {name!r}, and the hub says: {_cause(error)} "
            "Correct the name; a private repository needs `hf auth login`."
        ) from None
    missing = [file for file in (CONFIG, WEIGHTS) if not (found / file).exists()]
    if missing:
        there = ", ".join(sorted(file.name for file in found.iterdir())[:8]) or "nothing"
        raise CheckpointError(
            f"Expected {' and '.join(missing)} in the hub cache's copy of {wanted}; found {there}. Either the cache "
            "holds a part only, and going online completes it, or the repository is no glotfuse checkpoint."
        )
    return found


def _cause(error: BaseException) -> str:
    """First line of an error, or of the one that it came from."""
    origin = error.__cause__ or error
    lines = str(origin).strip().splitlines()
    return lines[0] if lines else type(origin).__name__
