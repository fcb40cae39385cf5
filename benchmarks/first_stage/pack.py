"""Puts a trained first stage into the package.

`python -m benchmarks.first_stage.pack RUN... --name e5-small+smollm2-135m` writes the fusion, the mean of several runs'
where there are several, in half precision with the last one's config, recipe, shortened record and a card into
src/glotfuse/model/fusions/NAME, from where `FusedLM.from_pretrained("bundled:NAME")` loads it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from safetensors.torch import save as tensors_to_bytes

from glotfuse.api import FusedLM
from glotfuse.files import to_json, write_files
from glotfuse.model import locating, self_check
from glotfuse.run_folder import CARD, CONFIG, RECIPE, RECORD, WEIGHTS, read_config, read_object, read_record

_LOGGED = ("eval_loss",)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first_stage.pack", description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--name", default="e5-small+smollm2-135m")
    parser.add_argument("--card", type=Path, default=Path(__file__).with_name("card.md"))
    options = parser.parse_args(arguments)
    parts = [load_file(run / WEIGHTS) for run in options.runs]
    means = {name: torch.stack([part[name] for part in parts]).mean(0) for name in parts[0]}
    tensors = {name: tensor.half().contiguous() for name, tensor in means.items()}
    last = options.runs[-1]
    weights = tensors_to_bytes(tensors)
    config = read_config(last) | {"weights_sha256": hashlib.sha256(weights).hexdigest()}
    config.pop("reading_sha256", None)
    config.pop("reference", None)  # of the last run alone
    record = read_record(last)
    record["mean_of"] = [read_config(run)["weights_sha256"] for run in options.runs]
    record["log"] = [line for line in record.get("log", []) if any(key in line for key in _LOGGED)]
    for place in ("data", "command"):  # of one machine
        record.pop(place, None)
    recipe = read_object(last / RECIPE)
    for values in (recipe, record.get("recipe", {})):  # where the data lay says nothing
        if values:
            values["task"]["path"] = "first_stage"
    target = locating.FUSIONS / options.name
    files = {WEIGHTS: weights, CONFIG: to_json(config), RECIPE: to_json(recipe), RECORD: to_json(record)}
    files[CARD] = options.card.read_bytes()
    write_files(target, files)
    files[CONFIG] = keep_reference(target)
    print(json.dumps({name: len(content) for name, content in files.items()}))


def keep_reference(folder: Path) -> bytes:
    """Writes into a packed fusion's config what it answers, for whoever loads it under other library versions."""
    config = read_config(folder)
    config.pop("reference", None)
    content = to_json({**config, "reference": self_check.reference(FusedLM.from_pretrained(folder, device="cpu"))})
    (folder / CONFIG).write_bytes(content)
    return content


if __name__ == "__main__":
    main()
