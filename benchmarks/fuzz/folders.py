"""Recipes and checkpoints: files that are made by hand, cut by full disks, or come from other people."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
import yaml
from hypothesis import strategies as st
from safetensors.torch import save

from benchmarks.fuzz.case import ANYTHING, Case, kind
from glotfuse.model.checkpoint import read_probe, read_weights
from glotfuse.recipes.loading import QUICKSTART, load_recipe, recipe_from_dict, to_dict
from glotfuse.run_folder import CONFIG, PROBE, WEIGHTS, read_config

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=8), st.dates(),
        st.sampled_from(["", "auto", "1e-3", "../x", "\u200d", -1, 0, 10**30]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)),
    max_leaves=5,
)  # fmt: skip
RECIPE: dict[str, Any] = yaml.safe_load(QUICKSTART.read_text("utf8"))
RECIPE_YAML = yaml.safe_dump(RECIPE).encode()


def _recipe(content: bytes, expected: Any, *mentions: str, overrides: list[str] | None = None) -> Case:
    def read(folder: Path) -> Any:
        path = folder / "recipe.yaml"
        path.write_bytes(content)
        return load_recipe(path, overrides)

    return Case("recipe.yaml", read, expected, mentions=mentions)


def _places(values: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = values.items() if isinstance(values, dict) else []
    return [found for key, value in inner for found in [(*path, key), *_places(value, (*path, key))]]


def _with(values: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(values)
    target = changed
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    return changed


@kind("recipe: sound")
def _(draw: Any) -> Case:
    changes = {"training": {"epochs": draw(st.floats(0, 10)), "seed": draw(st.integers(0, 2**31))}}
    words = draw(st.dictionaries(st.sampled_from("abc"), st.sampled_from(["ක්‍රීඩා", "no", "</s>", "é"]), max_size=3))
    values = {**RECIPE, **changes, "task": {"name": "files", "path": "data", "label_words": words}}
    content = yaml.safe_dump(values, allow_unicode=draw(st.booleans())).encode()
    mark = draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
    if draw(st.booleans()):
        content = content.replace(b"\n", b"\r\n")
    return _recipe(mark + content, recipe_from_dict(values))


@kind("recipe: written out and read again")
def _(draw: Any) -> Case:
    recipe = recipe_from_dict(_with(RECIPE, ("training",), {"learning_rate": draw(st.floats(1e-9, 1.0))}))
    return _recipe(json.dumps(to_dict(recipe)).encode(), recipe)


@kind("recipe: a value of any type anywhere")
def _(draw: Any) -> Case:
    values = _with(RECIPE, draw(st.sampled_from(_places(RECIPE))), draw(VALUES))
    return _recipe(yaml.safe_dump(values).encode(), ANYTHING)


@kind("recipe: an unknown key")
def _(draw: Any) -> Case:
    section = draw(st.sampled_from([(), ("encoder",), ("lm",)]))
    key = draw(st.text(st.characters(categories=["L", "N", "M"]), min_size=1, max_size=8)) + "_unknown"
    return _recipe(yaml.safe_dump(_with(RECIPE, (*section, key), draw(VALUES))).encode(), None, "problem(s)")


@kind("recipe: damaged bytes")
def _(draw: Any) -> Case:
    raw = bytearray(RECIPE_YAML)
    for place, byte in draw(st.lists(st.tuples(st.integers(0, len(raw) - 1), st.integers(0, 255)), max_size=4)):
        raw[place] = byte
    return _recipe(bytes(raw[: draw(st.integers(0, len(raw)))]), ANYTHING)


@kind("recipe: noise")
def _(draw: Any) -> Case:
    marks = st.sampled_from(
        ["- ", ": ", "&a ", "*a", "!!", "? ", "| ", "> ", "{", "}", "[", "]", "\n", "  ", "<<: ", "#"]
    )
    text = "".join(draw(st.lists(st.one_of(marks, st.text(max_size=3)), max_size=20)))
    return _recipe(draw(st.sampled_from([text.encode("utf-8", "replace"), draw(st.binary(max_size=80))])), ANYTHING)


@kind("recipe: UTF-16, NUL, nesting without end, aliases that multiply")
def _(draw: Any) -> Case:
    levels = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 9))
    bombs = [
        RECIPE_YAML.decode().encode("utf-16"), RECIPE_YAML + b"x: \0", b"a: " + b"[" * 20_000, b"{a: " * 20_000,
        f"l0: &l0 [a]\n{levels}task: *l8\n".encode(), b"task: &a [*a]\n", b"? [a, b]\n: c\n", b"? {a: b}\n: c\n",
        b"task: !!python/object/apply:os.system [ls]\n", b"task: {name: a}\ntask: {name: b}\n", b"<<: [1]\n",
    ]  # fmt: skip
    return _recipe(draw(st.sampled_from(bombs)), None)


@kind("recipe: --set with anything")
def _(draw: Any) -> Case:
    key = draw(st.sampled_from(["task.name", "training.epochs", "x", "task", "", "a.b.c", "fusion.mixer_options.x.y"]))
    return _recipe(
        RECIPE_YAML, ANYTHING, overrides=[draw(st.sampled_from([key, f"{key}={draw(st.text(max_size=12))}"]))]
    )


CHECKPOINT: dict[str, Any] = {
    "format": 1,
    "encoder": {"name": "e", "prefix": "", "src_lang": None},
    "lm": {"name": "l"},
    "weights_sha256": "0" * 64,
    "labels": ["a", "ක්‍රීඩා"],
}


def _config(content: bytes, expected: Any, *mentions: str) -> Case:
    def read(folder: Path) -> Any:
        (folder / CONFIG).write_bytes(content)
        return read_config(folder)

    return Case(CONFIG, read, expected, mentions=mentions)


@kind("checkpoint config: sound")
def _(draw: Any) -> Case:
    config = {**CHECKPOINT, "instruction": draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))}
    return _config(json.dumps(config, ensure_ascii=draw(st.booleans())).encode(), config)


@kind("checkpoint config: another file, format or nesting without end")
def _(draw: Any) -> Case:
    wrong: list[Any] = [{}, [], 1, None, {**CHECKPOINT, "format": draw(VALUES.filter(lambda v: v != 1))}]
    wrong += [{**CHECKPOINT, "weights_sha256": value} for value in (None, 5, [], {}, True)]
    texts = [json.dumps(value, default=str).encode() for value in wrong]
    return _config(draw(st.sampled_from([*texts, b"[" * 100_000, b'{"a":' * 100_000, b"", b"\xff\xfe{"])), None, CONFIG)


@kind("checkpoint config: damaged bytes")
def _(draw: Any) -> Case:
    raw = bytearray(json.dumps(CHECKPOINT).encode())
    for place, byte in draw(st.lists(st.tuples(st.integers(0, len(raw) - 1), st.integers(0, 255)), max_size=4)):
        raw[place] = byte
    return _config(bytes(raw[: draw(st.integers(0, len(raw)))]), ANYTHING, CONFIG)


def _weights(content: bytes, expected: Any, sha256: Any = None, file: str = WEIGHTS) -> Case:
    found = hashlib.sha256(content).hexdigest() if sha256 is None else sha256

    def read(folder: Path) -> Any:
        (folder / file).write_bytes(content)
        if file == PROBE:
            return read_probe(folder, {"probe_sha256": found})
        return {name: value.tolist() for name, value in read_weights(folder, found).items()}

    return Case(file, read, expected, mentions=(file,))


def _tensors(draw: Any) -> dict[str, torch.Tensor]:
    names = draw(
        st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6), max_size=3, unique=True)
    )
    return {
        name: torch.arange(draw(st.integers(0, 5)), dtype=torch.float32) for name in names if name != "__metadata__"
    }


@kind("checkpoint weights: sound")
def _(draw: Any) -> Case:
    tensors = _tensors(draw)
    return _weights(save(tensors), {name: value.tolist() for name, value in tensors.items()})


@kind("checkpoint weights: one byte changed")
def _(draw: Any) -> Case:
    raw = bytearray(save(_tensors(draw)))
    sha256 = hashlib.sha256(raw).hexdigest()
    raw[draw(st.integers(0, len(raw) - 1))] ^= draw(st.integers(1, 255))
    return _weights(bytes(raw), None, sha256)


@kind("checkpoint weights: damaged, with a hash that fits")
def _(draw: Any) -> Case:
    raw = bytearray(save(_tensors(draw)))
    for place, byte in draw(st.lists(st.tuples(st.integers(0, len(raw) - 1), st.integers(0, 255)), max_size=4)):
        raw[place] = byte
    content = draw(st.sampled_from([bytes(raw[: draw(st.integers(0, len(raw)))]), draw(st.binary(max_size=60))]))
    return _weights(content, ANYTHING)


@kind("checkpoint weights: a header that lies, with a hash that fits")
def _(draw: Any) -> Case:
    entry = {
        "dtype": draw(st.sampled_from(["F32", "F16", "F4", "BF16", "X9", "", 5, None, "F8_E8M0", "C64", "F6_E2M3"])),
        "shape": draw(st.sampled_from([[2], [-1], [2**62, 4], [], "x", None, [1, 2], [0], [1.5]])),
        "data_offsets": draw(st.sampled_from([[0, 8], [8, 0], [0, 2**63], [-1, 4], [0], None, [0, 4], [4, 8]])),
    }
    header = json.dumps({"a": entry, **draw(st.sampled_from([{}, {"__metadata__": 5}, {"b": entry}]))}).encode()
    size = draw(st.sampled_from([len(header), len(header) + 1, 0, 2**63, 2**40]))
    return _weights(size.to_bytes(8, "little") + header + bytes(8), ANYTHING)


@kind("checkpoint probe: any tensors, with a hash that fits")
def _(draw: Any) -> Case:
    content = draw(
        st.sampled_from([save(_tensors(draw)), save({"centre": torch.zeros(2)}), draw(st.binary(max_size=40))])
    )
    return _weights(content, None, file=PROBE)
