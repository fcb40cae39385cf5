"""Random weights of real configurations, made on the device, with tokenizers and texts made on the fly: no network."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from benchmarks.gpu.configs import Config, Pair
from benchmarks.setting import INSTRUCTION
from glotfuse.api import FusedLM
from glotfuse.backbones import LM, Encoder
from glotfuse.backbones.identity import BackboneIdentity
from glotfuse.inputs.batch import PreparedExample, prepare
from glotfuse.model.assembly import build_model
from glotfuse.recipes.config import FusionConfig, PromptConfig

LABELS = ("entertainment", "geography", "world health", "politics", "science and technology", "sports", "world travel")
TAIL = "Topic : "
_SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
_NUM_WORDS = 900


def texts(count: int, shortest: int = 12, longest: int = 60, seed: int = 0) -> list[str]:
    """Texts of random words, one token each for both tokenizers, about as long as SIB-200's sentences."""
    rng = random.Random(seed)
    return [
        " ".join(f"w{rng.randrange(_NUM_WORDS)}" for _ in range(rng.randint(shortest, longest))) for _ in range(count)
    ]


def word_tokenizer(specials: Sequence[str], before: str | None, after: str | None) -> Any:
    """One token per word: of random texts, of the prompt and of the labels."""
    from transformers import PreTrainedTokenizerFast

    prompt = INSTRUCTION.replace("{labels}", ", ".join(LABELS))
    own = f"{prompt} {TAIL} {' '.join(LABELS)}".split()
    words = dict.fromkeys([*specials, *own, *(f"w{i}" for i in range(_NUM_WORDS))])
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.add_special_tokens(list(specials))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    frame = [token for token in (before, after) if token]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=" ".join([*([before] if before else []), "$A", *([after] if after else [])]),
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in frame],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>"
    )


def backbones(
    pair: Pair, device: torch.device, dtype: torch.dtype, attention: str | None = None, seed: int = 0
) -> tuple[Encoder, LM]:
    """Encoder and LM with random weights, made where they will run.

    Args:
        pair: Their configurations.
        device: Where.
        dtype: Of the weights.
        attention: `sdpa`, `eager`, or None for what transformers chooses.
        seed: Of the weights.

    Raises:
        ValueError: The encoder or the LM has no such attention in this version of transformers.
    """
    from transformers import AutoModel, AutoModelForCausalLM

    torch.manual_seed(seed)
    encoder = _random(AutoModel, pair.encoder, device, dtype, attention)
    encoder = encoder.get_encoder() if pair.encoder["model_type"] == "mt5" else encoder
    lm = _random(AutoModelForCausalLM, pair.lm, device, dtype, attention)
    if pair.encoder["model_type"] == "mt5":
        reading = word_tokenizer(("<pad>", "</s>", "<unk>", "<s>"), None, "</s>")
    else:
        reading = word_tokenizer(_SPECIALS, "<s>", "</s>")
    writing = word_tokenizer(_SPECIALS, "<s>", None)
    return Encoder(encoder, reading, _identity(pair.encoder)), LM(lm, writing, _identity(pair.lm))


def _random(auto_class: Any, values: Config, device: torch.device, dtype: torch.dtype, attention: str | None) -> Any:
    from transformers import AutoConfig

    config = AutoConfig.for_model(**copy.deepcopy(values))  # it writes into nested ones
    options = {} if attention is None else {"attn_implementation": attention}
    with torch.device(device):
        return auto_class.from_config(config, dtype=dtype, **options)


def _identity(config: Config) -> BackboneIdentity:
    width = config.get("d_model") or config["hidden_size"]
    return BackboneIdentity(f"random {config['model_type']}", None, "", config["model_type"], width)


def fused(encoder: Encoder, lm: LM, *, mixer: str, layer_norm: str, seed: int = 1, **options: Any) -> FusedLM:
    """A model of loaded backbones with a fresh fusion in float32, without dropout and summary."""
    torch.manual_seed(seed)
    if mixer == "transformer_softmax":
        options = {"mixer_options": {"dropout": 0.0}, **options}
    return build_model(
        FusedLM,
        encoder,
        lm,
        fusion=FusionConfig(mixer=mixer, layer_norm=layer_norm, summary=False, boundary="normal", **options),
        prompt=PromptConfig(style="plain", instruction=INSTRUCTION, tail=TAIL),
        max_length=256,
        template="{text}",
        cut_column="text",
        instruction=INSTRUCTION,
        labels=list(LABELS),
    ).eval()


def answered(model: FusedLM, found: Sequence[str], seed: int = 0) -> list[PreparedExample]:
    """Training examples: the texts with a random label each."""
    rng = random.Random(seed)
    answers = [rng.choice(LABELS) for _ in found]
    return prepare(model.reader, model.prompt, [{"text": text} for text in found], answers=answers)
