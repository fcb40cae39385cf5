"""Writes tiny E5S1 files with known values, from the description of the format alone."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import numpy as np

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
    head = b"E5S1" + struct.pack("<I7ifi", version, HIDDEN, LAYERS, HEADS, FF, vocab, POSITIONS, TYPES, 1e-12, 32)
    head += struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, len(blob))
    head += struct.pack(f"<{len(offsets)}I", *offsets) + struct.pack(f"<{len(PIECES)}f", *(s for _, s in PIECES))
    head += blob + struct.pack("<iI", len(charsmap), len(entries)) + entries

    offset = len(head) + 4 + sum(2 + len(name) + 21 for name, *_ in directory)
    head += struct.pack("<i", len(directory))
    for name, dtype, count, raw in directory:
        head += struct.pack("<H", len(name)) + name + struct.pack("<BIQQ", dtype, count, offset, len(raw))
        offset += len(raw)
    path.write_bytes(head + b"".join(raw for *_, raw in directory))
    return expected
