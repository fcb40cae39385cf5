"""The E5S1 reader against files that this module writes by itself, value by value."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glotfuse.backbones.e5_format import build_normalizer, convert_e5, dequantise_q4_0, read_e5
from glotfuse.errors import BackboneError

HIDDEN, LAYERS, HEADS, FF, POSITIONS, TYPES = 64, 2, 4, 96, 16, 2
PIECES = [
    *(("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)),
    *(
        ("▁", -4.0),
        ("a", -3.0),
        ("b", -3.0),
        ("▁a", -2.0),
        ("ab", -2.5),
        ("▁ab", -3.5),
        ("ක", -3.0),
        ("fi", -2.0),
    ),
    ("<mask>", 0.0),
]
VOCAB = len(PIECES) + 3
"""Like the real file: more rows than pieces."""
CHARSMAP = {
    0x01: "",
    0x09: " ",
    0xA0: " ",
    0xAD: "",
    0xBA: "o",
    0xBD: "1⁄2",
    0x200D: " ",
    0x2581: " ",
    0xFB01: "fi",
    0x1D400: "A",
}


def tensor_shapes() -> dict[str, tuple[tuple[int, ...], bool]]:
    """Name -> shape and whether it is quantised, written out by hand."""
    shapes: dict[str, tuple[tuple[int, ...], bool]] = {
        "emb.word": ((VOCAB, HIDDEN), True),
        "emb.pos": ((POSITIONS, HIDDEN), False),
        "emb.type": ((TYPES, HIDDEN), False),
        "emb.ln.w": ((HIDDEN,), False),
        "emb.ln.b": ((HIDDEN,), False),
    }
    for layer in range(LAYERS):
        for name, rows, columns in [
            *(("q", HIDDEN, HIDDEN), ("k", HIDDEN, HIDDEN), ("v", HIDDEN, HIDDEN), ("ao", HIDDEN, HIDDEN)),
            *(("fi", FF, HIDDEN), ("fo", HIDDEN, FF)),
        ]:
            shapes[f"l{layer}.{name}.w"] = ((rows, columns), True)
            shapes[f"l{layer}.{name}.b"] = ((rows,), False)
        for name in ("aln", "oln"):
            shapes[f"l{layer}.{name}.w"] = ((HIDDEN,), False)
            shapes[f"l{layer}.{name}.b"] = ((HIDDEN,), False)
    return shapes


def write_e5(
    path: Path,
    *,
    leave_out: str | None = None,
    version: int = 1,
    charsmap: dict[int, str] = CHARSMAP,
    vocab: int = VOCAB,
) -> dict[str, np.ndarray]:
    """Writes a tiny file with random weights; returns the values that a reader must find in it."""
    rng = random.Random(0)
    expected: dict[str, np.ndarray] = {}
    directory: list[tuple[bytes, int, int, bytes]] = []
    for name, (shape, quantised) in tensor_shapes().items():
        count = int(np.prod(shape))
        values: list[float] = []
        raw = b""
        if quantised:
            for _ in range(count // 32):
                scale = rng.choice([0.5, -0.25, 0.0625, 1.5])
                nibbles = [rng.randrange(16) for _ in range(32)]
                values += [(nibble - 8) * scale for nibble in nibbles]
                raw += struct.pack("<e", scale)
                raw += bytes(nibbles[j] + 16 * nibbles[j + 16] for j in range(16))
        else:
            values = [rng.randrange(-64, 64) / 32 for _ in range(count)]
            raw = struct.pack(f"<{count}f", *values)
        expected[name] = np.array(values, np.float32).reshape(shape)
        if name != leave_out:
            directory.append((name.encode(), int(quantised), count, raw))

    blob, offsets = b"", [0]
    for piece, _ in PIECES:
        blob += piece.encode()
        offsets.append(len(blob))
    entries = b""
    for source, text in sorted(charsmap.items()):
        entries += struct.pack("<IB", source, len(text)) + b"".join(struct.pack("<I", ord(c)) for c in text)
    head = b"E5S1" + struct.pack(
        "<I7ifi", version, HIDDEN, LAYERS, HEADS, FF, vocab, POSITIONS, TYPES, 1e-12, 32
    )
    head += struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, len(blob))
    head += struct.pack(f"<{len(offsets)}I", *offsets) + struct.pack(
        f"<{len(PIECES)}f", *(s for _, s in PIECES)
    )
    head += blob + struct.pack("<iI", len(charsmap), len(entries)) + entries

    offset = len(head) + 4 + sum(2 + len(name) + 21 for name, *_ in directory)
    head += struct.pack("<i", len(directory))
    for name, dtype, count, raw in directory:
        head += struct.pack("<H", len(name)) + name + struct.pack("<BIQQ", dtype, count, offset, len(raw))
        offset += len(raw)
    path.write_bytes(head + b"".join(raw for *_, raw in directory))
    return expected


def plain_normalise(text: str, charsmap: dict[int, str]) -> str:
    """What the C source does: code point by code point, then runs of spaces become one."""
    mapped = "".join(charsmap.get(ord(c), c) for c in text)
    while "  " in mapped:
        mapped = mapped.replace("  ", " ")
    return mapped


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("e5")
    write_e5(folder / "tiny.bin")
    converted = folder / "converted"
    converted.mkdir()
    convert_e5(folder / "tiny.bin", converted)
    return converted


def test_a_q4_0_block_holds_low_nibbles_before_high_ones():
    raw = struct.pack("<e", 0.5) + bytes(range(0, 256, 16)) + struct.pack("<e", -2.0) + bytes([0x1F] * 16)
    first = [-4.0] * 16 + [(j - 8) * 0.5 for j in range(16)]
    assert dequantise_q4_0(raw, 64).tolist() == first + [-14.0] * 16 + [14.0] * 16


def test_all_tensors_have_the_values_written(tmp_path: Path):
    expected = write_e5(tmp_path / "tiny.bin")
    tensors = read_e5(tmp_path / "tiny.bin").tensors
    assert len(tensors) == len(expected) + 2  # and the pooler of zeros
    renamed = {
        "emb.word": "embeddings.word_embeddings.weight",
        "emb.ln.b": "embeddings.LayerNorm.bias",
        "l0.q.w": "encoder.layer.0.attention.self.query.weight",
        "l1.v.b": "encoder.layer.1.attention.self.value.bias",
        "l1.ao.w": "encoder.layer.1.attention.output.dense.weight",
        "l0.aln.w": "encoder.layer.0.attention.output.LayerNorm.weight",
        "l0.fi.w": "encoder.layer.0.intermediate.dense.weight",
        "l1.fo.w": "encoder.layer.1.output.dense.weight",
        "l1.oln.b": "encoder.layer.1.output.LayerNorm.bias",
    }
    for key, name in renamed.items():
        assert tensors[name].dtype == np.float32
        np.testing.assert_array_equal(tensors[name], expected[key], err_msg=key)
    total = sum(float(np.abs(values).sum()) for values in expected.values())
    assert sum(float(np.abs(values).sum()) for values in tensors.values()) == pytest.approx(total)


def test_the_folder_loads_as_a_bert_model_with_no_weight_missing(folder: Path, tmp_path: Path):
    import torch
    from transformers import AutoModel, BertModel

    model, info = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert isinstance(model, BertModel)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    config = model.config
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (
        HIDDEN,
        LAYERS,
        HEADS,
    )
    assert (config.vocab_size, config.max_position_embeddings, config.type_vocab_size) == (
        VOCAB,
        POSITIONS,
        TYPES,
    )
    assert config.layer_norm_eps == 1e-12
    expected = write_e5(tmp_path / "same.bin")
    np.testing.assert_array_equal(model.encoder.layer[1].output.dense.weight.detach(), expected["l1.fo.w"])


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("ab", "▁ab"),  # -3.5 beats ▁a + b at -5 and ▁ + ab at -6.5
        ("ba  ab", "▁ b a ▁ab"),
        ("a ", "▁a ▁"),
        ("ක\u200dක", "▁ ක ▁ ක"),
        ("a\xada", "▁a a"),
        ("ﬁ", "▁ fi"),
        ("azzb", "▁a <unk> b"),  # neighbouring unknown characters are one unknown piece, as in SentencePiece
    ],
)
def test_text_becomes_the_most_likely_pieces(folder: Path, text: str, tokens: str):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = [next(i for i, (piece, _) in enumerate(PIECES) if piece == token) for token in tokens.split()]
    assert tokenizer(text)["input_ids"] == [0, *ids, 2]


def test_the_tokenizer_is_xlm_roberta_s_in_special_tokens_and_pairs(folder: Path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.is_fast
    assert tokenizer.model_max_length == POSITIONS
    assert tokenizer("a", "a") == {"input_ids": [0, 7, 2, 2, 7, 2], "attention_mask": [1] * 6}
    specials = (tokenizer.bos_token, tokenizer.cls_token, tokenizer.eos_token, tokenizer.sep_token)
    assert specials == ("<s>", "<s>", "</s>", "</s>")
    assert (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.mask_token_id) == (1, 3, 12)
    assert tokenizer("a <mask>")["input_ids"] == [0, 7, 12, 2]  # the mask takes the space before it
    assert tokenizer.decode([0, 9, 7, 2], skip_special_tokens=True) == "ab a"
    padded = tokenizer(["a", "a a"], padding=True)
    assert padded["input_ids"] == [[0, 7, 2, 1], [0, 7, 7, 2]]


@given(
    st.lists(
        st.sampled_from([*map(chr, CHARSMAP), *"ab ක\u0dca\u0301\u0323\u200c\u0e33\ufe0f\r\n\U0001f468é"]),
        max_size=12,
    )
)
def test_normalisation_is_per_code_point_whatever_the_grapheme(characters: list[str]):
    text = "".join(characters)
    assert NORMALIZER.normalize_str(text) == plain_normalise(text, CHARSMAP)


NORMALIZER = build_normalizer(CHARSMAP)


@pytest.mark.parametrize(("rule", "result"), [({0x200D: " "}, "ක් ෂ"), ({0x200D: ""}, "ක්ෂ"), ({}, "ක්\u200dෂ")])
def test_a_zero_width_joiner_is_treated_as_the_map_says(rule: dict[int, str], result: str):
    assert build_normalizer({0xA0: " ", **rule}).normalize_str("ක්\u200dෂ") == result


@pytest.mark.parametrize("cut", [2, 30, 200, 2000])
def test_a_file_cut_short_is_refused(tmp_path: Path, cut: int):
    path = tmp_path / "tiny.bin"
    write_e5(path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(BackboneError, match="damaged"):
        read_e5(path)


def test_another_file_version_shape_or_a_missing_tensor_is_refused(tmp_path: Path):
    path = tmp_path / "tiny.bin"
    path.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(BackboneError, match=r"starts with b'E5S1'; found b'GGUF' in tiny\.bin"):
        read_e5(path)
    write_e5(path, version=2)
    with pytest.raises(BackboneError, match="version 1 with blocks of 32; found version 2"):
        read_e5(path)
    write_e5(path, vocab=VOCAB + 1)
    with pytest.raises(BackboneError, match=r"shape \(17, 64\) for 'emb\.word'; found 1024 values"):
        read_e5(path)
    write_e5(path, leave_out="l1.fo.w")
    with pytest.raises(BackboneError, match=r"none by the name of l1\.fo\.w"):
        read_e5(path)
