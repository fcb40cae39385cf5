"""Tiny encoders as those that embed text today come: mmBERT, EmbeddingGemma, BGE-M3 and Qwen3-Embedding.

Each has the architecture, the tokenizer's special tokens and the files of sentence-transformers of the model that it
stands for. Width 24 with 3 layers, as `tiny_models` has them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from tiny_tokenizers import SENTENCES, byte_level_bpe, fast_tokenizer, framed, xlmr_tokenizer

_GEMMA_SPECIALS = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
WIDTH = 24
_COMMON = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 130,
    "initializer_range": 0.3,
}


def mmbert(size: int) -> Any:
    """ModernBERT with windows of four tokens to each side, in all layers but one."""
    from transformers import ModernBertConfig, ModernBertModel

    ids = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2, "cls_token_id": 2, "sep_token_id": 1}
    windows = {"local_attention": 8, "global_attn_every_n_layers": 3}
    return ModernBertModel(
        ModernBertConfig(vocab_size=size, initializer_cutoff_factor=3.0, **_COMMON, **ids, **windows)
    )


def embedding_gemma(size: int) -> Any:
    """Gemma 3 that looks both ways, with windows in two layers of three."""
    from transformers import Gemma3TextConfig, Gemma3TextModel

    kinds = ["sliding_attention", "sliding_attention", "full_attention"]
    config = Gemma3TextConfig(
        vocab_size=size,
        num_key_value_heads=1,
        head_dim=12,
        query_pre_attn_scalar=12,
        sliding_window=8,
        layer_types=kinds,
        use_bidirectional_attention=True,
        **_COMMON,
    )
    return Gemma3TextModel(config)


def bge_m3(size: int) -> Any:
    """XLM-R without a head for masked words."""
    from transformers import XLMRobertaConfig, XLMRobertaModel

    config = XLMRobertaConfig(vocab_size=size, pad_token_id=1, bos_token_id=0, eos_token_id=2, **_COMMON)
    return XLMRobertaModel(config)


def qwen3_embedding(size: int) -> Any:
    """Qwen 3, which looks back alone."""
    from transformers import Qwen3Config, Qwen3Model

    return Qwen3Model(Qwen3Config(vocab_size=size, num_key_value_heads=1, head_dim=12, pad_token_id=0, **_COMMON))


def gemma_tokenizer(folder: Path) -> Any:
    """Gemma's: spaces are `▁`, unknown characters are bytes; `<bos>` before a text and `<eos>` after it."""
    from transformers import GemmaTokenizer

    base = Tokenizer(models.BPE(unk_token="<unk>"))
    base.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    known = [*_GEMMA_SPECIALS, *(f"<0x{byte:02X}>" for byte in range(256))]
    base.train_from_iterator(
        SENTENCES * 3, trainers.BpeTrainer(vocab_size=520, special_tokens=known, show_progress=False)
    )
    pieces = json.loads(base.to_str())["model"]
    merges = [tuple(pair) for pair in pieces["merges"]]
    tokenizer = GemmaTokenizer(vocab=pieces["vocab"], merges=merges, add_bos_token=True, add_eos_token=True)
    tokenizer.save_pretrained(folder)
    return tokenizer


def embedding_gemma_tokenizer(folder: Path) -> Any:
    """With two linear maps after the mean, as EmbeddingGemma has."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        wide, narrow = torch.randn(40, WIDTH), torch.randn(WIDTH, 40)
    poolings = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True, "include_prompt": True}
    sentence_transformers(folder, poolings, dense=(wide, narrow))
    return gemma_tokenizer(folder)


def bge_tokenizer(folder: Path) -> Any:
    """Its embedding is the state of the first token."""
    sentence_transformers(folder, {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False})
    return xlmr_tokenizer(folder)


def qwen3_embedding_tokenizer(folder: Path) -> Any:
    """Its embedding is the state of the last token, `<|endoftext|>`, which the tokenizer adds, and which also pads."""
    sentence_transformers(folder, {"pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False})
    base = framed(byte_level_bpe(["<|endoftext|>", "<|im_start|>", "<|im_end|>"]), None, "<|endoftext|>")
    return fast_tokenizer(folder, base, eos_token="<|im_end|>", pad_token="<|endoftext|>", padding_side="left")


def sentence_transformers(
    folder: Path, pooling: Mapping[str, Any], *, dense: Sequence[torch.Tensor] = (), normalize: bool = True
) -> None:
    """Writes the files beside a model that say how it embeds sentences.

    Args:
        folder: Of the model.
        pooling: What `1_Pooling/config.json` says.
        dense: Weights (out,in) of linear maps after it, without bias and activation.
        normalize: Whether a last module scales to length one.
    """
    kinds = ["Transformer", "Pooling", *("Dense" for _ in dense), *(["Normalize"] if normalize else [])]
    modules = [
        {
            "idx": number,
            "name": str(number),
            "path": f"{number}_{kind}" if number else "",
            "type": f"sentence_transformers.models.{kind}",
        }
        for number, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    _write(folder / "1_Pooling", {"word_embedding_dimension": WIDTH, **pooling})
    for number, weights in enumerate(dense, 2):
        sizes = {"in_features": weights.shape[1], "out_features": weights.shape[0]}
        place = folder / f"{number}_Dense"
        _write(place, {**sizes, "bias": False, "activation_function": "torch.nn.modules.linear.Identity"})
        save_file({"linear.weight": weights}, place / "model.safetensors")


def _write(folder: Path, config: Mapping[str, Any]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
