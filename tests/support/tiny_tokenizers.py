"""Tiny tokenizers made on the fly, with the special tokens and chat templates of the families they stand for."""

from __future__ import annotations

import atexit
import functools
import json
import math
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

SENTENCES = (
    "The economy is growing.",
    "A new hospital was opened in the capital.",
    "The team won the match in the last minute of the game.",
    "Scientists found a new planet around a distant star.",
    "science technology politics sports travel health entertainment geography",
    "Answer with one of: science, politics, sports. sports news; health news.",
    "science",
    "politics",
    "sports",
    "user assistant system model label category review premise hypothesis: science, science",
    "ආර්ථිකය වර්ධනය වෙමින් පවතී.",
    "කණ්ඩායම අවසන් මිනිත්තුවේ තරගය ජයගත්තේය.",
    "பொருளாதாரம் வளர்ந்து வருகிறது.",
    "अर्थव्यवस्था बढ़ रही है।",
    "Экономика растёт.",
    "الاقتصاد ينمو.",
    "经济正在增长。",
    "ኢኮኖሚው እያደገ ነው።",
)
"""What the tokenizers are trained on."""

TEXTS = (
    "The economy is growing.",
    "ආර්ථිකය වර්ධනය වෙමින් පවතී.",
    "Scientists found a new planet around a distant star in the capital of the game.",
    "Экономика",
)
"""Texts of different lengths and scripts."""

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>"
    "{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
INST = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)


@functools.cache
def _root() -> Path:
    root = Path(tempfile.mkdtemp(prefix="glotfuse-tiny-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return root


def new_folder() -> Path:
    """An empty folder that is removed at the end of the process."""
    return Path(tempfile.mkdtemp(dir=_root()))


def byte_level_bpe(specials: Sequence[str], size: int = 460) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(specials),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES * 3, trainer)
    return tokenizer


def unigram(specials: Sequence[str], num_parts: int = 150) -> Tokenizer:
    """All characters and the commonest parts of words; the trainer of `tokenizers` finds others in every process."""
    words = [f"▁{word}" for word in " ".join(SENTENCES).split()]
    counts = Counter(
        word[start:end] for word in words for start in range(len(word)) for end in range(start + 1, len(word) + 1)
    )
    parts = sorted((p for p in counts if 2 <= len(p) <= 4), key=lambda p: (-counts[p] * (len(p) - 1), p))[:num_parts]
    pieces = [*sorted(p for p in counts if len(p) == 1), *parts]
    scores = [(piece, math.log(counts[piece] / counts.total())) for piece in pieces]  # negative: few pieces win
    tokenizer = Tokenizer(models.Unigram([*((name, 0.0) for name in specials), *scores], specials.index("<unk>")))
    tokenizer.add_special_tokens(list(specials))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def framed(tokenizer: Tokenizer, before: str | None, after: str | None) -> Tokenizer:
    """Has special tokens put around every text."""
    used = [token for token in (before, after) if token]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=" ".join([*([before] if before else []), "$A", *([after] if after else [])]),
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in used],
    )
    return tokenizer


def fast_tokenizer(folder: Path, tokenizer: Tokenizer, chat_template: str | None = None, **specials: str) -> Any:
    """A tokenizer of transformers with these special tokens, saved to a folder."""
    from transformers import PreTrainedTokenizerFast

    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **specials)
    if chat_template:
        fast.chat_template = chat_template
    fast.save_pretrained(folder)
    return fast


# Of encoders


def t5_tokenizer(folder: Path) -> Any:
    base = framed(unigram(["<pad>", "</s>", "<unk>"]), None, "</s>")
    return fast_tokenizer(folder, base, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def mt5_tokenizer(folder: Path) -> Any:
    """As of mT5: a piece for each byte in the vocabulary, which transformers' tokenizer makes no use of."""
    from transformers import T5Tokenizer

    specials, others = _parts(json.loads(unigram(["<pad>", "</s>", "<unk>"]).to_str())["model"]["vocab"], 3)
    bytes_ = [(f"<0x{byte:02X}>", 0.0) for byte in range(256)]
    tokenizer = T5Tokenizer(vocab=[*specials, *bytes_, *others], extra_ids=2)
    tokenizer.save_pretrained(folder)
    return tokenizer


def _parts(vocab: Sequence[Sequence[Any]], size: int) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
    pieces = [(str(piece), float(score)) for piece, score in vocab]
    return pieces[:size], pieces[size:]


def xlmr_tokenizer(folder: Path) -> Any:
    base = framed(unigram(["<s>", "<pad>", "</s>", "<unk>", "<mask>"]), "<s>", "</s>")
    names = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>"}
    return fast_tokenizer(folder, base, pad_token="<pad>", unk_token="<unk>", mask_token="<mask>", **names)


def bert_tokenizer(folder: Path) -> Any:
    base = framed(byte_level_bpe(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]), "[CLS]", "[SEP]")
    names = {"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    return fast_tokenizer(folder, base, pad_token="[PAD]", unk_token="[UNK]", **names)


def nllb_tokenizer(folder: Path) -> Any:
    from transformers import NllbTokenizer

    base = Tokenizer(models.BPE(unk_token="<unk>"))
    base.pre_tokenizer = pre_tokenizers.Metaspace()
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    base.train_from_iterator(
        SENTENCES * 3, trainers.BpeTrainer(vocab_size=220, special_tokens=specials, show_progress=False)
    )
    pieces = json.loads(base.to_str())["model"]
    tokenizer = NllbTokenizer(vocab=pieces["vocab"], merges=[tuple(pair) for pair in pieces["merges"]])
    tokenizer.save_pretrained(folder)
    return tokenizer


def m2m_tokenizer(folder: Path) -> Any:
    import sentencepiece
    from transformers import M2M100Tokenizer

    prefix = new_folder() / "sentencepiece"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 3),
        model_prefix=str(prefix),
        vocab_size=180,
        character_coverage=1.0,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    pieces = sentencepiece.SentencePieceProcessor(model_file=f"{prefix}.model")
    names = ["<s>", "<pad>", "</s>", "<unk>", *(pieces.id_to_piece(i) for i in range(3, len(pieces)))]
    vocabulary = prefix.with_suffix(".json")
    vocabulary.write_text(json.dumps({name: i for i, name in enumerate(names)}), "utf8")
    tokenizer = M2M100Tokenizer(vocab_file=str(vocabulary), spm_file=f"{prefix}.model")
    tokenizer.save_pretrained(folder)
    return tokenizer


# Of LMs


def sentence_tokenizer(template: str | None) -> Callable[[Path], Any]:
    """With a BOS that it adds itself, as Llama's, Gemma's and Mistral's."""

    def make(folder: Path) -> Any:
        turns = ["<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]"]
        base = framed(byte_level_bpe(["<unk>", "<s>", "</s>", "<pad>", *turns]), "<s>", None)
        names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
        return fast_tokenizer(folder, base, template, **names)

    return make


def qwen_tokenizer(folder: Path) -> Any:
    """Without BOS."""
    base = byte_level_bpe(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    return fast_tokenizer(folder, base, CHATML, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def gpt_tokenizer(folder: Path) -> Any:
    """One special token for everything, no pad token, no chat template."""
    return fast_tokenizer(
        folder, byte_level_bpe(["<|endoftext|>"]), bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    )


def opt_tokenizer(folder: Path) -> Any:
    base = framed(byte_level_bpe(["<s>", "<pad>", "</s>", "<unk>"]), "</s>", None)
    return fast_tokenizer(folder, base, bos_token="</s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>")
