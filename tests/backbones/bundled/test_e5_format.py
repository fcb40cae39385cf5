"""The E5S1 reader against files that `e5_writer` writes by itself, value by value."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from e5_writer import HEADS, HIDDEN, LAYERS, POSITIONS, TYPES, VOCAB, write_e5
from glotfuse.backbones.bundled.e5_format import dequantise_q4_0, read_e5
from glotfuse.errors import BackboneError


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


def test_the_folder_loads_as_a_bert_model_with_no_weight_missing(e5_folder: Path, tmp_path: Path):
    import torch
    from transformers import AutoModel, BertModel

    model, info = AutoModel.from_pretrained(e5_folder, output_loading_info=True)
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
