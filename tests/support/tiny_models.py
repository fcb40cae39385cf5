"""Tiny randomly initialised models of every family, each with the kind of tokenizer it comes with.

Initial weights are large, so that hidden states and logits differ visibly between inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tiny_embedders import (
    bge_m3,
    bge_tokenizer,
    embedding_gemma,
    embedding_gemma_tokenizer,
    gemma_tokenizer,
    mmbert,
    qwen3_embedding,
    qwen3_embedding_tokenizer,
)
from tiny_tokenizers import (
    CHATML,
    GEMMA,
    INST,
    bert_tokenizer,
    gpt_tokenizer,
    m2m_tokenizer,
    nllb_tokenizer,
    opt_tokenizer,
    qwen_tokenizer,
    sentence_tokenizer,
    t5_tokenizer,
    xlmr_tokenizer,
)

Family = tuple[Callable[[int], Any], Callable[[Path], Any]]
"""How to make a model for a vocabulary size, and its tokenizer, saved to a folder."""

# Encoders, of width 24 with 3 layers


def _t5(kind: str) -> Callable[[int], Any]:
    def make(size: int) -> Any:
        import transformers as hf

        config = getattr(hf, f"{kind}Config")(
            vocab_size=size,
            d_model=24,
            d_kv=12,
            d_ff=32,
            num_layers=3,
            num_decoder_layers=1,
            num_heads=2,
            initializer_factor=2.0,
            pad_token_id=0,
            eos_token_id=1,
        )
        return getattr(hf, f"{kind}Model")(config)

    return make


def _bert_like(kind: str, **extra: Any) -> Callable[[int], Any]:
    def make(size: int) -> Any:
        import transformers as hf

        config = getattr(hf, f"{kind}Config")(
            vocab_size=size,
            hidden_size=24,
            num_hidden_layers=3,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=130,
            initializer_range=0.3,
            **extra,
        )
        return getattr(hf, f"{kind}ForMaskedLM")(config)

    return make


def _m2m(size: int) -> Any:
    from transformers import M2M100Config, M2M100Model

    config = M2M100Config(
        vocab_size=size + 110,  # a slow M2M100 tokenizer does not count its languages
        d_model=24,
        encoder_layers=3,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_position_embeddings=128,
        init_std=0.3,
    )
    return M2M100Model(config)


ENCODERS: dict[str, Family] = {
    "mt5": (_t5("MT5"), t5_tokenizer),
    "umt5": (_t5("UMT5"), t5_tokenizer),
    "xlm-r": (_bert_like("XLMRoberta", pad_token_id=1, bos_token_id=0, eos_token_id=2), xlmr_tokenizer),
    "bert": (_bert_like("Bert", pad_token_id=0), bert_tokenizer),
    "modernbert": (
        _bert_like(
            "ModernBert",
            pad_token_id=0,
            cls_token_id=2,
            sep_token_id=3,
            bos_token_id=2,
            eos_token_id=3,
            local_attention=8,
            global_attn_every_n_layers=2,
            initializer_cutoff_factor=3.0,
        ),
        bert_tokenizer,
    ),
    "m2m100": (_m2m, m2m_tokenizer),
    "nllb": (_m2m, nllb_tokenizer),
    "mmbert": (mmbert, gemma_tokenizer),
    "embedding-gemma": (embedding_gemma, embedding_gemma_tokenizer),
    "bge-m3": (bge_m3, bge_tokenizer),
    "qwen3-embedding": (qwen3_embedding, qwen3_embedding_tokenizer),
}

# LMs, of width 32


def _llama_like(kind: str, **extra: Any) -> Callable[[int], Any]:
    """Rotary positions, two key-value heads."""

    def make(size: int) -> Any:
        import transformers as hf

        # Gemma 3's model and config names differ
        config = getattr(hf, f"{kind}TextConfig" if kind == "Gemma3" else f"{kind}Config")(
            vocab_size=size,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            max_position_embeddings=512,
            initializer_range=0.3,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=3,
            **extra,
        )
        return getattr(hf, f"{kind}ForCausalLM")(config)

    return make


def _neox(size: int) -> Any:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    config = GPTNeoXConfig(
        vocab_size=size,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=512,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=0,
    )
    return GPTNeoXForCausalLM(config)


def _opt(size: int) -> Any:
    from transformers import OPTConfig, OPTForCausalLM

    config = OPTConfig(
        vocab_size=size,
        hidden_size=32,
        word_embed_proj_dim=24,  # as in OPT-350M: embeddings are projected inside the model
        num_hidden_layers=3,
        num_attention_heads=4,
        ffn_dim=48,
        max_position_embeddings=512,
        init_std=0.3,
        bos_token_id=2,
        eos_token_id=2,
        pad_token_id=1,
    )
    return OPTForCausalLM(config)


def _gpt2(size: int) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=size,
        n_embd=32,
        n_layer=3,
        n_head=4,
        n_positions=512,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=0,
    )
    return GPT2LMHeadModel(config)


def _bloom(size: int) -> Any:
    from transformers import BloomConfig, BloomForCausalLM

    config = BloomConfig(
        vocab_size=size,
        hidden_size=32,
        n_layer=3,
        n_head=4,
        initializer_range=0.3,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
    )
    return BloomForCausalLM(config)


def _mpt(size: int) -> Any:
    from transformers import MptConfig, MptForCausalLM

    config = MptConfig(
        vocab_size=size,
        d_model=32,
        n_layers=3,
        n_heads=4,
        expansion_ratio=2,
        max_seq_len=512,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=0,
    )
    return MptForCausalLM(config)


def _mamba(size: int) -> Any:
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(
        vocab_size=size,
        hidden_size=32,
        state_size=8,
        num_hidden_layers=2,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    return MambaForCausalLM(config)


def _falcon_h1(size: int) -> Any:
    """Attention and a state-space model side by side in every layer; its class does not name `inputs_embeds`."""
    from transformers import FalconH1Config, FalconH1ForCausalLM

    config = FalconH1Config(
        vocab_size=size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        mamba_d_ssm=32,
        mamba_n_heads=4,
        mamba_d_head=8,
        mamba_n_groups=1,
        mamba_d_state=8,
        mamba_chunk_size=4,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    return FalconH1ForCausalLM(config)


def _gemma3_with_vision(size: int) -> Any:
    """The class that hub models of Gemma 3 from 4B on have: a text model beside a vision tower."""
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration, SiglipVisionConfig

    text = _llama_like("Gemma3", **_local(3, 8, query_pre_attn_scalar=8, tie_word_embeddings=False))(size).config
    vision = SiglipVisionConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=28, patch_size=14
    )
    places = {
        "tie_word_embeddings": False,
        "image_token_index": size - 1,
        "boi_token_index": size - 2,
        "eoi_token_index": size - 3,
    }
    return Gemma3ForConditionalGeneration(
        Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4, initializer_range=0.3, **places)
    )


def _local(period: int, window: int, **extra: Any) -> dict[str, Any]:
    """Layers with an attention window, and one in `period` without."""
    kinds = ["full_attention" if (i + 1) % period == 0 else "sliding_attention" for i in range(3)]
    return {"layer_types": kinds, "sliding_window": window, **extra}


LMS: dict[str, Family] = {
    "llama": (_llama_like("Llama"), sentence_tokenizer(CHATML)),
    "qwen3": (_llama_like("Qwen3"), qwen_tokenizer),
    "gemma": (_llama_like("Gemma"), sentence_tokenizer(GEMMA)),
    "gemma2": (
        _llama_like(
            "Gemma2",
            **_local(
                2,
                8,
                query_pre_attn_scalar=8,
                attn_logit_softcapping=3.0,
                final_logit_softcapping=4.0,
                tie_word_embeddings=False,
            ),
        ),
        sentence_tokenizer(GEMMA),
    ),
    "gemma3": (
        _llama_like("Gemma3", **_local(3, 8, query_pre_attn_scalar=8, tie_word_embeddings=False)),
        sentence_tokenizer(GEMMA),
    ),
    "mistral": (_llama_like("Mistral", sliding_window=24), sentence_tokenizer(INST)),
    "mistral-short": (_llama_like("Mistral", sliding_window=6), sentence_tokenizer(INST)),
    "gpt-neox": (_neox, gpt_tokenizer),
    "opt": (_opt, opt_tokenizer),
    "gpt2": (_gpt2, gpt_tokenizer),
    "bloom": (_bloom, sentence_tokenizer(None)),
    "mpt": (_mpt, gpt_tokenizer),
    "mamba": (_mamba, gpt_tokenizer),
    "falcon-h1": (_falcon_h1, gpt_tokenizer),
    "gemma3-vision": (_gemma3_with_vision, sentence_tokenizer(GEMMA)),
}
