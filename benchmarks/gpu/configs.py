"""Configurations of real encoders and LMs, the pairs that are measured, and small and shallow versions of them.

They are those of the models' `config.json` on the hub (google/mt5-large, google/mt5-xl, FacebookAI/xlm-roberta-large,
meta-llama/Llama-3.2-1B, Qwen/Qwen3-0.6B), as far as they shape the computation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

Config = dict[str, Any]

MT5_LARGE: Config = {
    "model_type": "mt5",
    "vocab_size": 250112,
    "d_model": 1024,
    "d_kv": 64,
    "d_ff": 2816,
    "num_layers": 24,
    "num_decoder_layers": 1,  # 24 on the hub; glotfuse takes the encoder and drops the decoder
    "num_heads": 16,
    "relative_attention_num_buckets": 32,
    "feed_forward_proj": "gated-gelu",
    "layer_norm_epsilon": 1e-6,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
}
MT5_XL: Config = {**MT5_LARGE, "d_model": 2048, "d_ff": 5120, "num_heads": 32}
XLM_R_LARGE: Config = {
    "model_type": "xlm-roberta",
    "vocab_size": 250002,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "hidden_act": "gelu",
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
    "bos_token_id": 0,
    "pad_token_id": 1,
    "eos_token_id": 2,
}
LLAMA_1B: Config = {
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 2048,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "intermediate_size": 8192,
    "hidden_act": "silu",
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "tie_word_embeddings": True,
}
QWEN3_600M: Config = {
    "model_type": "qwen3",
    "vocab_size": 151936,
    "hidden_size": 1024,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 3072,
    "hidden_act": "silu",
    "max_position_embeddings": 40960,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": True,
}

_SMALL: dict[str, Config] = {
    "mt5": {"vocab_size": 1024, "d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 3, "num_heads": 4},
    "xlm-roberta": {
        "vocab_size": 1024,
        "hidden_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 96,
    },
    "llama": {
        "vocab_size": 1024,
        "hidden_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 24,
        "intermediate_size": 128,
    },
}
_SMALL["qwen3"] = _SMALL["llama"]


@dataclass(frozen=True)
class Pair:
    """An encoder with an LM, as configurations."""

    name: str
    encoder: Config
    lm: Config
    layer_norm: str
    """Of the fusion where layers are mixed: mT5's states are raw sums."""

    def small(self) -> Pair:
        """The same families, tiny, for a rehearsal."""
        return replace(self, encoder=self.encoder | _small(self.encoder), lm=self.lm | _small(self.lm))

    def shallow(self, num_layers: int = 3, vocabulary: int = 8192) -> Pair:
        """The same widths with few layers and words, so that a CPU can follow.

        The LM's output layer is one of its own: random weights that are also the embeddings would make it repeat its
        input, with logits so large that half precision rounds them to quarters.
        """

        def cut(config: Config) -> Config:
            name = "num_layers" if config["model_type"] == "mt5" else "num_hidden_layers"
            return config | {name: num_layers, "vocab_size": min(vocabulary, config["vocab_size"])}

        return replace(self, encoder=cut(self.encoder), lm=cut(self.lm) | {"tie_word_embeddings": False})


PAIRS = {
    pair.name: pair
    for pair in (
        Pair("mt5-large+llama-1b", MT5_LARGE, LLAMA_1B, "rms"),
        Pair("xlm-r-large+qwen3-0.6b", XLM_R_LARGE, QWEN3_600M, "none"),
        Pair("mt5-xl+llama-1b", MT5_XL, LLAMA_1B, "rms"),
    )
}


def _small(config: Config) -> Config:
    return _SMALL[config["model_type"]]
