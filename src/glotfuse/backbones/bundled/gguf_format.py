"""Reads SmolLM2's 4-bit GGUF file and writes it as a standard `transformers` folder in float32."""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def convert_gguf(data: Path, folder: Path) -> None:
    """Dequantises a GGUF file through transformers and writes it into `folder`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = {"pretrained_model_name_or_path": str(data.parent), "gguf_file": data.name}
    # the progress bars of transformers would drown the caller's own lines
    with contextlib.redirect_stderr(io.StringIO()), read_once():
        tokenizer = AutoTokenizer.from_pretrained(**source)
        model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
        complete_tokenizer(tokenizer, data)
        tokenizer.model_max_length = model.config.max_position_embeddings
        # what is saved is plain float32, not GGUF any more
        model.hf_quantizer = None
        del model.config.quantization_config
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def complete_tokenizer(tokenizer: Any, data: Path) -> None:
    """Gives a GGUF file's tokenizer the part that transformers leaves out.

    The pre-tokenizer "smollm" sets each digit apart.
    """
    import gguf
    from tokenizers import pre_tokenizers

    with read_once():
        field = gguf.GGUFReader(str(data)).get_field("tokenizer.ggml.pre")
    if field is not None and field.contents() == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        words = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])


@contextlib.contextmanager
def read_once() -> Iterator[None]:
    """Halves the time: transformers parses the file's 100,000 strings three times and its names 397 times."""
    import gguf

    names = ("GGUFReader", "get_tensor_name_map")
    originals = {name: getattr(gguf, name) for name in names}
    try:
        for name, original in originals.items():
            setattr(gguf, name, functools.cache(original))
        yield
    finally:
        for name, original in originals.items():
            setattr(gguf, name, original)
