"""Data files: the kinds of input that every format knows, and how the files of a case are loaded."""

from __future__ import annotations

import codecs
import gzip
import json
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from benchmarks.fuzz.case import ANYTHING, Case, kind
from benchmarks.fuzz.writers import (
    SPECIAL,
    Pairs,
    all_texts,
    delimited,
    json_array,
    jsonl,
    pairs_of,
    parquet_of,
    records,
    texts,
    tsv,
)
from glotfuse.tasks import task_from_files

Rows = list[tuple[str, str | None]]
TSV_TEXTS = all_texts(without='"\t\n\r')
ANY_TEXTS = all_texts()
ENCODERS: Mapping[str, Callable[[str], bytes]] = {
    "byte order mark": lambda text: codecs.BOM_UTF8 + text.encode(),
    "UTF-16": lambda text: text.encode("utf-16"),
    "UTF-16 big-endian": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
    "UTF-32": lambda text: text.encode("utf-32"),
}
FORMATS: Mapping[str, tuple[st.SearchStrategy[str], Callable[[Pairs], bytes]]] = {
    "tsv": (TSV_TEXTS, lambda pairs: tsv(pairs).encode()),
    "csv": (ANY_TEXTS, lambda pairs: delimited(pairs).encode()),
    "jsonl": (ANY_TEXTS, lambda pairs: jsonl(pairs).encode()),
    "json": (ANY_TEXTS, lambda pairs: json.dumps(records(pairs), indent=1).encode()),
    "parquet": (ANY_TEXTS, parquet_of),
}
"""Extension: the texts that the format can hold, and a plain writer."""


def load(files: Mapping[str, bytes], split: str = "train", **options: Any) -> Callable[[Path], Rows]:
    """Returns a reader of files as a user has them."""

    def read(folder: Path) -> Rows:
        for name, content in files.items():
            (folder / name).write_bytes(content)
        loaded = task_from_files(folder, **options).load(split, "eng_Latn")
        report = loaded.report
        assert report.rows == report.kept + report.dropped, report
        return [("\x1f".join(example.fields.values()), example.label) for example in loaded]

    return read


def written(pairs: Pairs) -> Rows:
    """What must come out: labels have one form of accents and no blanks around them."""
    return [(text, unicodedata.normalize("NFC", label).strip()) for text, label in pairs]


def good(name: str, content: bytes | str, pairs: Pairs, **options: Any) -> Case:
    raw = content.encode() if isinstance(content, str) else content
    return Case(name, load({name: raw}, **options), written(pairs))


def bad(name: str, content: bytes | str, *mentions: str, **options: Any) -> Case:
    raw = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
    return Case(name, load({name: raw}, **options), None, mentions=mentions)


def _add_formats() -> None:
    for extension, (content, write) in FORMATS.items():
        file = f"train.{extension}"

        @kind(f"{extension}: any text")
        def _(draw: Any, file: str = file, content: Any = content, write: Any = write) -> Case:
            pairs = draw(pairs_of(content))
            return good(file, write(pairs), pairs)

        for special, pieces in SPECIAL.items():

            @kind(f"{extension}: {special}")
            def _(draw: Any, file: str = file, write: Any = write, pieces: Any = pieces) -> Case:
                pairs = draw(pairs_of(texts(*pieces, without='"\t\n\r')))
                return good(file, write(pairs), pairs)

        @kind(f"{extension}: documents of 100,000 characters")
        def _(draw: Any, file: str = file, content: Any = content, write: Any = write) -> Case:
            short, label = draw(pairs_of(content))[0]
            pairs = [(short * (100_000 // len(short) + 1), label), ("b", "other")]
            return good(file, write(pairs), pairs)

        @kind(f"{extension}: 200 labels")
        def _(draw: Any, file: str = file, content: Any = content, write: Any = write) -> Case:
            text = draw(content)
            pairs = [(text, f"label {number}") for number in range(200)]
            return good(file, write(pairs), pairs)

        @kind(f"{extension}: NFC and NFD labels are one")
        def _(draw: Any, file: str = file, content: Any = content, write: Any = write) -> Case:
            text = draw(content)
            pairs = [(text, "café"), (text, "cafe\u0301"), (text, "other")]
            return good(file, write(pairs), pairs)

        @kind(f"{extension}: blanks around labels")
        def _(draw: Any, file: str = file, content: Any = content, write: Any = write) -> Case:
            blanks = st.sampled_from(["", " ", "  ", "\xa0"])
            pairs = [(t, draw(blanks) + w + draw(blanks)) for t, w in draw(pairs_of(content))]
            return good(file, write(pairs), pairs)

        @kind(f"{extension}: label words in the target language")
        def _(draw: Any, file: str = file, content: Any = content, write: Any = write) -> Case:
            words = {"0": "ක්‍රීඩා", "1": "සෞඛ්‍ය"}
            pairs = [(draw(content), raw) for raw in draw(st.lists(st.sampled_from("01"), min_size=1, max_size=5))]
            expected = [(text, words[raw]) for text, raw in pairs]
            return Case(file, load({file: write(pairs)}, labels=words), expected)

        @kind(f"{extension}: labels that look alike")
        def _(draw: Any, file: str = file, content: Any = content, write: Any = write) -> Case:
            label = draw(st.sampled_from(["sports", "ක්‍රීඩා", "very good"]))
            twins = {label.upper(), label + "\u200f", label.replace("\u200d", ""), label.replace(" ", "  ")} - {label}
            twin, text = draw(st.sampled_from(sorted(twins))), draw(content)
            return bad(file, write([(text, label), (text, twin), (text, "x")]), "2" if file.endswith("sv") else "1")

        @kind(f"{extension}: NUL in a text")
        def _(draw: Any, file: str = file, content: Any = content, write: Any = write) -> Case:
            pairs, text = draw(pairs_of(content)), draw(content)
            raw = write([*pairs, (f"a{text}\0b", "sports")])
            if draw(st.booleans()):
                return Case(file, load({file: raw}, on_invalid_row="skip"), written(pairs))
            return bad(file, raw, file, "NUL", "column 'text'")

        @kind(f"{extension}: one class in training")
        def _(draw: Any, file: str = file, content: Any = content, write: Any = write) -> Case:
            return bad(file, write([(draw(content), "sports")] * 2), file, "at least two labels", "sports")

        @kind(f"{extension}: a label in test that training lacks")
        def _(draw: Any, file: str = file, content: Any = content, write: Any = write) -> Case:
            pairs, test = draw(pairs_of(content)), file.replace("train", "test")
            files = {file: write(pairs), test: write([(draw(content), "unheard of")])}
            return Case(test, load(files, "test"), None, mentions=(test, "row", "unheard of"))

        @kind(f"{extension}: an empty test set")
        def _(draw: Any, file: str = file, content: Any = content, write: Any = write) -> Case:
            test = file.replace("train", "test")
            files = {file: write(draw(pairs_of(content))), test: b"" if "json" in file else write([])}
            return Case(test, load(files, "test"), None, mentions=(test,))

        @kind(f"{extension}: rows repeated across splits, one row in dev")
        def _(draw: Any, file: str = file, content: Any = content, write: Any = write) -> Case:
            pairs = draw(pairs_of(content))
            files = {file: write([*pairs, pairs[0]]), file.replace("train", "dev"): write(pairs[:1])}
            return Case(file, load(files, "dev"), written(pairs[:1]))

        @kind(f"{extension}: damaged bytes")
        def _(draw: Any, file: str = file, content: Any = content, write: Any = write) -> Case:
            raw = bytearray(write(draw(pairs_of(content))))
            for place, byte in draw(st.lists(st.tuples(st.integers(0, len(raw) - 1), st.integers(0, 255)), max_size=4)):
                raw[place] = byte
            cut = draw(st.integers(0, len(raw)))
            return Case(file, load({file: bytes(raw[:cut])}), ANYTHING)

        @kind(f"{extension}: noise")
        def _(draw: Any, file: str = file) -> Case:
            return Case(file, load({file: draw(st.binary(max_size=300))}), ANYTHING)

        if extension == "parquet":
            continue

        @kind(f"{extension}: encodings")
        def _(draw: Any, file: str = file, content: Any = content, write: Any = write) -> Case:
            pairs = draw(pairs_of(content))
            return good(file, ENCODERS[draw(st.sampled_from(sorted(ENCODERS)))](write(pairs).decode()), pairs)

        @kind(f"{extension}: UTF-16 without mark")
        def _(draw: Any, file: str = file, content: Any = content, write: Any = write) -> Case:
            encoding = draw(st.sampled_from(["utf-16-le", "utf-16-be"]))
            return bad(file, write(draw(pairs_of(content))).decode().encode(encoding), file, "UTF-8")

        @kind(f"{extension}: gzip")
        def _(draw: Any, file: str = file, content: Any = content, write: Any = write) -> Case:
            pairs = draw(pairs_of(content))
            return good(f"{file}.gz", gzip.compress(write(pairs)), pairs)

        @kind(f"{extension}: gzip, cut")
        def _(draw: Any, file: str = file, content: Any = content, write: Any = write) -> Case:
            raw = gzip.compress(write(draw(pairs_of(content))))
            return bad(f"{file}.gz", raw[: draw(st.integers(2, len(raw) - 1))], f"{file}.gz")

        @kind(f"{extension}: a byte that is not UTF-8")
        def _(draw: Any, file: str = file, content: Any = content) -> Case:
            byte = draw(st.integers(0x80, 0xFF))
            pairs = [(draw(content) + chr(0xDC00 + byte), "a"), ("x", "b")]
            write = {"tsv": tsv, "csv": delimited, "jsonl": jsonl, "json": json_array}[file.removeprefix("train.")]
            return bad(file, write(pairs), file, "row ", "column 'text'", "UTF-8")


_add_formats()
