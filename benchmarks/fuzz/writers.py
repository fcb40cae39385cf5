"""Texts of all kinds, and plain writers of the formats: the standard library's, and pyarrow's."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

import pyarrow as pa
from hypothesis import strategies as st
from pyarrow import parquet

Pairs = Sequence[tuple[str, str]]
"""Text and label of every row."""

SPECIAL = {
    "zero-width joiners": ("ක්‍රීඩා", "ශ්‍රී", "മലയാളം ന്‍", "‌می‌خواهم"),
    "right-to-left marks": ("\u200fاردو\u200f", "\u202eabc\u202c", "עברית\u200e"),
    "emoji": ("😀", "👩‍👩‍👧‍👦", "🇱🇰", "❤️"),
    "end tokens": ("</s>", "<|im_end|>", "<s>", "[SEP]", "<pad>", "<|endoftext|>"),
    "decomposed accents": ("é", "é", "Å", "ñ", "क़"),
    "odd breaks": ("\u2028", "\x85", "\x0c", "\x0b", "\u2029", "\xa0"),
    "marks of formats": (",", ";", "|", "'", "\\", "{", "}", "[", ":", "#", "sep=;", "null", "NaN", "\\n", "\\t"),
}
"""Pieces of text that a reader may stumble over, by kind."""

LABELS = ("sports", "very good", "ක්‍රීඩා", "صحت", "café", "cafe", "-", "label", "n/a", "'quoted'", "🎵", "science/tech")


def texts(*pieces: str, without: str = "") -> st.SearchStrategy[str]:
    """Texts with something to read in them, made of any characters, `pieces` and words; none holds NUL."""
    letters = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0" + without), max_size=8)
    parts = st.lists(st.one_of(letters, st.sampled_from([*pieces, "word", " "])), max_size=6)
    usual = st.tuples(parts, st.sampled_from(["a", "ක", "ع", "7"]), parts)
    return usual.map(lambda found: "".join([*found[0], found[1], *found[2]]))


def all_texts(without: str = "") -> st.SearchStrategy[str]:
    """Texts with every kind of special piece."""
    pieces = [piece for of in SPECIAL.values() for piece in of if not set(piece) & set(without)]
    more = [mark for mark in ('"', '""', "\t", "\n", "\r\n") if not set(mark) & set(without)]
    return texts(*pieces, *more, without=without)


def pairs_of(content: st.SearchStrategy[str], most: int = 6) -> st.SearchStrategy[list[tuple[str, str]]]:
    """Rows with at least two labels."""
    chosen = st.lists(st.sampled_from(LABELS), min_size=2, max_size=4, unique=True)

    def rows(labels: list[str]) -> st.SearchStrategy[list[tuple[str, str]]]:
        first = st.tuples(*(st.tuples(content, st.just(label)) for label in labels))
        more = st.lists(st.tuples(content, st.sampled_from(labels)), max_size=most - 2)
        return st.tuples(first, more).map(lambda both: [*both[0], *both[1]])

    return chosen.flatmap(rows)


def tsv(pairs: Pairs, header: Sequence[str] = ("text", "label"), end: str = "\n") -> str:
    return "".join("\t".join(cells) + end for cells in (header, *pairs))


def delimited(pairs: Pairs, header: Sequence[str] = ("text", "label"), **dialect: object) -> str:
    file = io.StringIO(newline="")
    csv.writer(file, **dialect).writerows([header, *pairs])  # type: ignore[arg-type]
    return file.getvalue()


def records(pairs: Pairs) -> list[dict[str, object]]:
    return [{"text": text, "label": label} for text, label in pairs]


def jsonl(pairs: Pairs, ascii_only: bool = False) -> str:
    return "".join(json.dumps(record, ensure_ascii=ascii_only) + "\n" for record in records(pairs))


def json_array(pairs: Pairs) -> str:
    return f"[{jsonl(pairs).removesuffix(chr(10)).replace(chr(10), ',')}]"


def parquet_bytes(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    parquet.write_table(table, sink)
    return sink.getvalue()


def parquet_of(pairs: Pairs) -> bytes:
    return parquet_bytes(pa.table({"text": [t for t, _ in pairs], "label": [w for _, w in pairs]}))
