"""Reads SmolLM2's 4-bit GGUF file and writes it as a standard `transformers` folder in float32."""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Iterator
from pathlib import Path


def convert_gguf(data: Path, folder: Path) -> None:
    """Dequantises a GGUF file through transformers and writes it into `folder`."""
    import torch
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = {"pretrained_model_name_or_path": str(data.parent), "gguf_file": data.name}
    # the progress bars of transformers would drown the caller's own lines
    with contextlib.redirect_stderr(io.StringIO()), _read_once():
        tokenizer = AutoTokenizer.from_pretrained(**source)
        model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
        # the file's pre-tokenizer, "smollm", sets each digit apart, which transformers leaves out
        digits = pre_tokenizers.Digits(individual_digits=True)
        words = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
        tokenizer.model_max_length = model.config.max_position_embeddings
        # what is saved is plain float32, not GGUF any more
        model.hf_quantizer = None
        del model.config.quantization_config
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


@contextlib.contextmanager
def _read_once() -> Iterator[None]:
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
