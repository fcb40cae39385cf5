"""Tokenizers load as the auto class loads them, and their vocabulary is not read in Python."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoTokenizer, tokenization_utils_base

from glotfuse.backbones.tokenizer import _added_tokens, load_tokenizer
from tiny import ENCODERS, LMS, TEXTS, encoder_folder, lm_folder

FAMILIES = [*((encoder_folder, family) for family in ENCODERS), *((lm_folder, family) for family in LMS)]


def state(tokenizer: Any) -> list[Any]:
    """All that a tokenizer does and knows, but where it came from."""
    told = {key: repr(value) for key, value in tokenizer.init_kwargs.items()}
    added = [(i, repr(token)) for i, token in tokenizer.added_tokens_decoder.items()]
    ids = tokenizer([*TEXTS, "</s> <s>[CLS]<pad>"])["input_ids"]
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return [type(tokenizer), told, added, ids, tokenizer.special_tokens_map, backend and backend.to_str()]


@pytest.mark.parametrize(("folder_of", "family"), FAMILIES, ids=[*ENCODERS, *LMS])
def test_it_is_the_tokenizer_of_the_auto_class(folder_of: Callable[[str], str], family: str) -> None:
    folder = folder_of(family)
    config = AutoConfig.from_pretrained(folder)
    assert state(load_tokenizer(folder, Path(folder), config)) == state(AutoTokenizer.from_pretrained(folder))


@pytest.fixture
def generic(tmp_path: Path) -> Path:
    """A folder whose tokenizer takes all from tokenizer.json."""
    folder = tmp_path / "model"
    shutil.copytree(lm_folder("llama"), folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text("utf8"))
    settings = {**settings, "tokenizer_class": "TokenizersBackend"}
    settings.pop("added_tokens_decoder", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def load_counting(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list[str]]:
    """A tokenizer, and the files that transformers read as JSON in Python for it."""
    read: list[str] = []
    load = json.load

    class Counting:
        def __getattr__(self, name: str) -> Any:
            return getattr(json, name)

        def load(self, handle: Any) -> Any:
            read.append(Path(handle.name).name)
            return load(handle)

    with monkeypatch.context() as patch:
        patch.setattr(tokenization_utils_base, "json", Counting())
        return load_tokenizer(str(folder), folder, AutoConfig.from_pretrained(folder)), read


def test_a_generic_tokenizer_s_vocabulary_is_not_read_in_python(generic: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, read = load_counting(generic, monkeypatch)
    assert state(found) == state(AutoTokenizer.from_pretrained(generic))
    assert found.added_tokens_decoder
    assert "tokenizer.json" not in read


@pytest.mark.parametrize("what", ["added_tokens.json", "other order", "broken config"])
def test_what_is_laid_out_otherwise_is_left_to_transformers(generic: Path, what: str) -> None:
    file = generic / "tokenizer.json"
    content = json.loads(file.read_text("utf8"))
    if what == "added_tokens.json":
        (generic / what).write_text('{"<extra>": 4000}')
    elif what == "other order":
        added = content.pop("added_tokens")
        file.write_text(json.dumps({**content, "added_tokens": added}))
    else:
        (generic / "tokenizer_config.json").write_text("[]")
    config = AutoConfig.from_pretrained(generic)
    try:
        expected = state(AutoTokenizer.from_pretrained(generic))
    except Exception as error:
        with pytest.raises(type(error)):
            load_tokenizer(str(generic), generic, config)
    else:
        assert state(load_tokenizer(str(generic), generic, config)) == expected


def test_added_tokens_of_an_inner_object_are_not_taken(generic: Path) -> None:
    tokens = [{"id": 3, "content": "<right>"}]
    assert _added_tokens(generic)
    (generic / "tokenizer.json").write_text(json.dumps({"added_tokens": tokens, "model": {}}))
    assert _added_tokens(generic) == {"3": {"content": "<right>"}}
    (generic / "tokenizer.json").write_text(json.dumps({"model": {"added_tokens": tokens}, "added_tokens": []}))
    assert _added_tokens(generic) is None
