"""A backbone's tokenizer, without its vocabulary being read twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_GENERIC = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""Classes that take all from tokenizer.json."""
_OLDER_FILES = ("added_tokens.json", "special_tokens_map.json")
_KEY = "added_tokens"


def load_tokenizer(source: str, folder: Path, config: Any, **hub: Any) -> Any:
    """Loads the tokenizer of a backbone through the auto class of transformers.

    Args:
        source: Local folder or hub id.
        folder: Where its files are, if they are on the disk.
        config: Of the model.
        **hub: `revision` and `trust_remote_code`.

    Raises:
        OSError: There is none.
        ValueError: It cannot be read.
    """
    from transformers import AutoTokenizer

    known = _added_tokens(folder)
    options = {} if known is None else {"added_tokens_decoder": known}
    return AutoTokenizer.from_pretrained(source, config=config, **options, **hub)


def _added_tokens(folder: Path) -> dict[str, dict[str, Any]] | None:
    """The added tokens by id, as older files have them; None where transformers must find them itself.

    It would read all of tokenizer.json for them in Python, whose vocabulary is then read again in Rust. They stand in
    front of it.
    """
    try:
        settings = json.loads((folder / "tokenizer_config.json").read_text("utf8"))
        if settings.get("tokenizer_class") not in _GENERIC or {"added_tokens_decoder", "auto_map"} & settings.keys():
            return None
        if "fast_tokenizer_files" in settings or any((folder / name).exists() for name in _OLDER_FILES):
            return None
        text = (folder / "tokenizer.json").read_text("utf8")
        begin = text.index(f'"{_KEY}"')
        json.loads(f'{text[:begin]}"{_KEY}": []}}')  # the key is of the file's own object, not of one inside
        begin = text.index("[", begin)
        tokens, _ = json.JSONDecoder().raw_decode(text, begin)
        return {str(token.pop("id")): token for token in tokens}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # transformers says what is wrong
