"""A bilingual lexicon from nothing but a multilingual encoder: words of its own vocabulary that mean the same.

A multilingual tokenizer's vocabulary holds tens of thousands of whole words of other languages. Each is encoded by
itself, pooled as the encoder was trained to pool; what all words of one script have in common is taken away, and an
English word's translations are its nearest neighbours of each script under cross-domain similarity local scaling, which
keeps words that are near everything from being chosen (Conneau et al. 2018, arXiv 1710.04087). No text and no
dictionary of any other language is read.

Shapes: V vocabulary words, W English words, E width of the encoder's sentence embeddings.
"""

from __future__ import annotations

import hashlib
import json
import math
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import dropwhile
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor
from torch.nn import functional as F

from glotfuse.backbones import Encoder
from glotfuse.backbones.pooling import MEAN
from glotfuse.errors import ConfigError
from glotfuse.files import write_file
from glotfuse.model.sentence_embeddings import pooled

LEXICONS = "lexicons"
"""Folder of the stores inside glotfuse's cache."""

MIN_SIMILARITY, MARGIN, NEIGHBOURS = 0.35, 0.15, 8
"""Least cosine of a translation; how far it may be below the best one's; most translations per word and script."""
_CSLS_NEIGHBOURS = 10
_CANDIDATES = 32
_MIN_WORDS, _MAX_WORDS = 200, 40_000
"""Words of a script that its mean needs, and the most that are encoded."""
_LONG_WORD_SCRIPTS = {"LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "GEORGIAN"}
WITHOUT_SPACES = {"CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN"}
"""Scripts whose words follow each other without spaces, so that a word's token says nothing of where it begins."""
_SPACE, _SPACE_MARKS = " ", ("▁", "Ġ")
_SAME_STEM = 4
_WORDS_PER_BATCH = 1024
_ROWS = 500
_SETTINGS = f"{MIN_SIMILARITY} {MARGIN} {NEIGHBOURS} {_CSLS_NEIGHBOURS} {_CANDIDATES} {_SAME_STEM}"

Progress = Callable[[int], None]
T = TypeVar("T")


@dataclass(frozen=True)
class Lexicon:
    """Translations of English words, by script."""

    translations: Mapping[str, Mapping[str, tuple[str, ...]]]
    """Script name of Unicode, such as `DEVANAGARI`, to English word in lower case to words of that script."""
    weights: Mapping[str, float]
    """How often each script is to be used: the square root of the number of words that the vocabulary has of it."""
    coverage: float
    """Share of the English words that have a translation in some script."""


@dataclass(frozen=True)
class Vocabulary:
    """Whole words of an encoder's vocabulary with their embeddings."""

    words: Sequence[str]
    """V words."""
    scripts: Sequence[str]
    """Of each word."""
    embeddings: Tensor
    """(V,E), of each word by itself."""
    key: str
    """A hash of the encoder and the words."""


def script_of(word: str) -> str | None:
    """Unicode's name of the script that most letters of a word belong to; None without letters."""
    names = Counter(unicodedata.name(letter, "?").split()[0] for letter in word if letter.isalpha())
    return names.most_common(1)[0][0] if names else None


def vocabulary_words(encoder: Encoder) -> tuple[list[str], list[str]]:
    """Words that the tokenizer writes as one token after a space, and their scripts.

    Only letters and marks; at least four characters in alphabets and in scripts without spaces, whose shorter tokens
    are mostly pieces of words, and two in Chinese and others; at most 40,000 of a script, evenly from all over the
    vocabulary.
    """
    chosen = {
        script: words[:: math.ceil(len(words) / _MAX_WORDS)]
        for script, words in _words_by_script(encoder).items()
        if len(words) >= _MIN_WORDS
    }
    return [w for group in chosen.values() for w in group], [s for s, group in chosen.items() for _ in group]


def _words_by_script(encoder: Encoder) -> dict[str, list[str]]:
    tokenizer = encoder.tokenizer
    ids = sorted(set(range(len(tokenizer))) - set(tokenizer.all_special_ids))
    words = [text.strip() for text in tokenizer.batch_decode([[number] for number in ids])]
    written = [(number, word) for number, word in zip(ids, words, strict=True) if _is_word(word)]
    again = tokenizer([_SPACE + word for _, word in written], add_special_tokens=False)["input_ids"] if written else []
    blank = {number for number, word in zip(ids, words, strict=True) if not word}
    found: dict[str, dict[str, None]] = {}
    for (number, word), tokens in zip(written, again, strict=True):
        script = script_of(word)
        bare = list(dropwhile(blank.__contains__, tokens))  # where the space is a token of its own
        marked = bare == tokens or tokenizer.convert_ids_to_tokens(number).startswith(_SPACE_MARKS)
        if bare == [number] and script and len(word) >= _shortest(script, marked):
            found.setdefault(script, {})[word] = None
    return {script: list(group) for script, group in found.items()}


def described(encoder: Encoder) -> str:
    """What matters to a lexicon, for messages: architecture, vocabulary, and how words are embedded."""
    fast = getattr(encoder.tokenizer, "backend_tokenizer", None)
    kind = type(fast.model).__name__ if fast is not None else type(encoder.tokenizer).__name__
    if fast is not None and "ByteLevel" in repr(fast.pre_tokenizer):
        kind = f"byte-level {kind}"
    model = encoder.model
    one_way = any(getattr(module, "is_causal", False) for module in model.modules())
    direction = ", which reads from left to right" if one_way else ""
    pooling = " and ".join(encoder.pooling.modes)
    return (
        f"a {type(model).__name__}{direction}, with a {kind} vocabulary of {len(encoder.tokenizer):,} tokens, whose "
        f"words are embedded by the pooling {pooling!r}"
    )


def _shortest(script: str, marked: bool) -> float:
    """Fewest characters of a word, for shorter tokens are mostly pieces of words.

    Args:
        script: Its script.
        marked: Whether its token holds the space before it.
    """
    if marked:
        return 4 if script in _LONG_WORD_SCRIPTS else 2
    if script not in WITHOUT_SPACES:
        return math.inf  # a piece from inside of words
    return 2 if script == "CJK" else 4


def _is_word(text: str) -> bool:
    return text[:1].isalpha() and all(c.isalpha() or unicodedata.category(c).startswith("M") for c in text)


def embed_words(encoder: Encoder, words: Sequence[str], progress: Progress | None = None) -> Tensor:
    """Embeddings of words by themselves, (W,E), on the CPU, as the encoder embeds a sentence.

    The encoder's prefix is left out, for it would be most of the text.
    """
    encoder.use_language(None)
    texts = [_SPACE + word for word in words]  # as inside of a text, for tokenizers that mark spaces alone
    ids: list[list[int]] = encoder.tokenizer(texts, verbose=False)["input_ids"] if words else []
    return pooled(encoder, ids, _WORDS_PER_BATCH, progress, prefixed=False)


def read_vocabulary(encoder: Encoder, folder: Path, progress: Callable[[int], Progress]) -> Vocabulary:
    """The encoder's words, encoded once and then kept on the disk.

    Args:
        encoder: The frozen encoder.
        folder: Where stores are; deleting it is safe.
        progress: Called with the number of words when they have to be encoded; what it gives is called with the number
            of words of each batch.

    Raises:
        ConfigError: Its vocabulary has no whole words of any script.
    """
    words, scripts = vocabulary_words(encoder)
    if not words:
        counts = Counter({script: len(group) for script, group in _words_by_script(encoder).items()})
        most = ", ".join(f"{count} of {script}" for script, count in counts.most_common(3)) or "none"
        raise ConfigError(
            f"Expected a multilingual vocabulary for code-switched views, which are made of its words: at least "
            f"{_MIN_WORDS} whole words of some script; found {most} in {encoder.identity.name}, {described(encoder)}. "
            "Set augmentation.code_switching to 0 to train without views, or take an encoder whose vocabulary has "
            "words of many languages, such as XLM-R, e5, BGE-M3, mT5, mmBERT or EmbeddingGemma."
        )
    pooling = encoder.pooling.to_dict()
    made_with = [encoder.identity.sha256, str(encoder.dtype), encoder.src_lang or "", *words]
    made_with += ["byte fallback"] if encoder.byte_fallback else []
    if pooling != MEAN:  # whose stores are named as they were before there was a choice
        made_with.append(json.dumps(pooling))
    key = hashlib.sha256("\n".join(made_with).encode()).hexdigest()[:24]
    embeddings = _stored(
        folder / f"{key}.safetensors",
        lambda path: load_file(path)["embeddings"],
        lambda: embed_words(encoder, words, progress(len(words))).half(),
        lambda found: tensors_to_bytes({"embeddings": found}),
    ).float()
    return Vocabulary(words, scripts, embeddings, key)


def read_lexicon(encoder: Encoder, vocabulary: Vocabulary, english: Sequence[str], folder: Path) -> Lexicon:
    """Translations of English words (W,), from the disk where the same words were translated before."""
    key = hashlib.sha256("\n".join([vocabulary.key, _SETTINGS, *english]).encode()).hexdigest()[:24]
    return _stored(
        folder / f"{key}.json",
        lambda path: _lexicon_from(json.loads(path.read_text("utf8"))),
        lambda: build_lexicon(encoder, vocabulary, english),
        lambda found: json.dumps(asdict(found), ensure_ascii=False).encode("utf8"),
    )


def _lexicon_from(values: Mapping[str, Any]) -> Lexicon:
    tables = {s: {w: tuple(words) for w, words in table.items()} for s, table in values["translations"].items()}
    return Lexicon(tables, values["weights"], values["coverage"])


def _stored(path: Path, read: Callable[[Path], T], make: Callable[[], T], to_bytes: Callable[[T], bytes]) -> T:
    """What a file holds; made and written where it is missing or damaged, by one process, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        try:
            return read(path)
        except (OSError, SafetensorError, ValueError, KeyError, AttributeError):
            made = make()
            write_file(path, to_bytes(made))
            return made


def build_lexicon(encoder: Encoder, vocabulary: Vocabulary, english: Sequence[str]) -> Lexicon:
    """Translations of English words into every script of the vocabulary.

    Words of Latin script that are among these, or begin like the word, are no translations of it; other English words
    cannot be told from those of other languages, so some Latin translations are synonyms.

    Args:
        encoder: The frozen encoder.
        vocabulary: Its words.
        english: W words, each once, in lower case.
    """
    queries = _unit(embed_words(encoder, english)).to(encoder.device)
    known = set(english)
    scripts = np.array(vocabulary.scripts)
    translations: dict[str, dict[str, tuple[str, ...]]] = {}
    weights: dict[str, float] = {}
    for script in dict.fromkeys(vocabulary.scripts):
        (places,) = np.nonzero(scripts == script)
        words = [vocabulary.words[int(place)] for place in places]
        nearest = _nearest(queries, _unit(vocabulary.embeddings[torch.from_numpy(places)]).to(encoder.device))
        table = {
            word: tuple(chosen)
            for word, candidates in zip(english, nearest, strict=True)
            if (chosen := _translations(word, [(words[place], cosine) for place, cosine in candidates], known))
        }
        if table:
            translations[script] = table
            weights[script] = math.sqrt(len(words))
    covered = {word for table in translations.values() for word in table}
    return Lexicon(translations, weights, len(covered) / max(len(english), 1))


def _nearest(queries: Tensor, targets: Tensor) -> list[list[tuple[int, float]]]:
    """Places of the targets (V,E) nearest to each of the queries (W,E), hubs last, with their cosines.

    Those that are too far for a translation are left out.
    """
    k = min(_CSLS_NEIGHBOURS, len(queries), len(targets))
    hubs = torch.cat([(part @ queries.T).topk(k, dim=1).values.mean(1) for part in torch.split(targets, 4 * _ROWS)])
    found = []
    for part in torch.split(queries, _ROWS):
        cosines = part @ targets.T
        order = (2 * cosines - hubs).topk(min(_CANDIDATES, len(targets)), dim=1).indices
        near = cosines.gather(1, order)
        enough = (near >= MIN_SIMILARITY).any(dim=1).tolist()
        found += [
            [pair for pair in zip(places, row, strict=True) if pair[1] >= MIN_SIMILARITY] if any_near else []
            for any_near, places, row in zip(enough, order.tolist(), near.tolist(), strict=True)
        ]
    return found


def _translations(word: str, candidates: Sequence[tuple[str, float]], english: set[str]) -> list[str]:
    """The candidates that are foreign, near, and not much farther than the nearest of them."""
    foreign = [(candidate, cosine) for candidate, cosine in candidates if _foreign(candidate.lower(), word, english)]
    least = max(MIN_SIMILARITY, max((cosine for _, cosine in foreign), default=0.0) - MARGIN)
    return [candidate for candidate, cosine in foreign if cosine >= least][:NEIGHBOURS]


def _foreign(candidate: str, word: str, english: set[str]) -> bool:
    return candidate not in english and not word.startswith((candidate, candidate[:_SAME_STEM]))


def _unit(embeddings: Tensor) -> Tensor:
    return F.normalize(embeddings - embeddings.mean(0), dim=-1)
