"""Data files: what is particular to a format, and the faults that spreadsheets, notebooks and the web put in."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from benchmarks.fuzz.any_format import ANY_TEXTS, ENCODERS, TSV_TEXTS, Rows, bad, good, load, written
from benchmarks.fuzz.case import Case, kind
from benchmarks.fuzz.writers import (
    LABELS,
    all_texts,
    delimited,
    jsonl,
    pairs_of,
    parquet_bytes,
    records,
    texts,
    tsv,
)
from glotfuse.tasks import task_from_files


@kind("tsv: CRLF, or the line ends of old Macs")
def _(draw: Any) -> Case:
    pairs = draw(pairs_of(TSV_TEXTS))
    return good("train.tsv", tsv(pairs, end=draw(st.sampled_from(["\r\n", "\r"]))), pairs)


@kind("tsv: quotes that are part of the text")
def _(draw: Any) -> Case:
    pairs = [*draw(pairs_of(all_texts(without="\t\n\r"))), ('she said "no" to it', "x"), ('5" screen', "x")]
    return good("train.tsv", tsv(pairs), pairs)


@kind("tsv: quoted by a spreadsheet")
def _(draw: Any) -> Case:
    """Tabs, quotes and new lines inside; where lines could be rows either way, an error may come."""
    pairs = draw(pairs_of(all_texts(without="\r")))
    ends = {"lineterminator": draw(st.sampled_from(["\n", "\r\n"]))}
    anchored = [*pairs, ("a\tb", "x"), ('""c""', "x")]
    raw = delimited(anchored, dialect="excel-tab", **ends).encode()
    return Case(
        "train.tsv", load({"train.tsv": raw}), written(anchored), may_refuse=True, mentions=("row", "quotation")
    )


@kind("tsv: all cells quoted")
def _(draw: Any) -> Case:
    pairs = draw(pairs_of(texts('"', ",", "'")))
    return good("train.tsv", delimited(pairs, delimiter="\t", quoting=csv.QUOTE_ALL), pairs)


@kind("csv: other separators, announced or not")
def _(draw: Any) -> Case:
    pairs, mark = draw(pairs_of(TSV_TEXTS)), draw(st.sampled_from(";|\t"))
    first = draw(st.sampled_from(["", f"sep={mark}\r\n"]))
    return good("train.csv", first + delimited(pairs, delimiter=mark), pairs)


@kind("csv: semicolons with quotes and new lines inside")
def _(draw: Any) -> Case:
    end = draw(st.sampled_from(["\n", "\r\n"]))  # with the first, Python's writer does not quote a carriage return
    pairs = draw(pairs_of(all_texts(without="\r" if end == "\n" else "")))
    return good("train.csv", delimited(pairs, delimiter=";", lineterminator=end), pairs)


@kind("csv: new lines inside, LF or CRLF between")
def _(draw: Any) -> Case:
    pairs = draw(pairs_of(texts("\n", "\r\n", '"', ",")))
    end = draw(st.sampled_from(["\n", "\r\n"]))
    return good("train.csv", delimited(pairs, lineterminator=end, quoting=csv.QUOTE_ALL), pairs)


@kind("csv: a blank after every comma")
def _(draw: Any) -> Case:
    pairs = draw(pairs_of(ANY_TEXTS))
    lines = "".join(f'"{text.replace(chr(34), chr(34) * 2)}", {label}\n' for text, label in pairs)
    return good("train.csv", f"text, label\n{lines}", pairs)


@kind("csv and tsv: blanks around column names")
def _(draw: Any) -> Case:
    pairs, blank = draw(pairs_of(TSV_TEXTS)), draw(st.sampled_from([" ", "  ", "\xa0"]))
    header = (f"{blank}text", f"label{blank}")
    if draw(st.booleans()):
        return good("train.tsv", tsv(pairs, header), pairs)
    return good("train.csv", delimited(pairs, header), pairs)


@kind("csv and tsv: columns twice")
def _(draw: Any) -> Case:
    header = draw(
        st.sampled_from([("text", "text", "label"), ("text", "label", " label"), ("text", "label", "x", "x")])
    )
    cells = [tuple("abcd"[: len(header)])] * 2
    mark, name = draw(st.sampled_from([("\t", "train.tsv"), (",", "train.csv")]))
    return bad(name, delimited(cells, header, delimiter=mark), name, "twice")


@kind("csv: index and unnamed columns of pandas and spreadsheets")
def _(draw: Any) -> Case:
    pairs = draw(pairs_of(ANY_TEXTS))
    cells = [(str(number), text, label, "", "") for number, (text, label) in enumerate(pairs)]
    return good("train.csv", delimited(cells, ("", "text", "label", "", "")), pairs)


@kind("csv and tsv: ragged rows")
def _(draw: Any) -> Case:
    pairs = draw(pairs_of(TSV_TEXTS))
    mark, name = draw(st.sampled_from([("\t", "train.tsv"), (",", "train.csv")]))
    ragged = mark.join(draw(st.sampled_from([["one"], ["one", "two", "three"], ["one", "", "", "x"]])))
    body = tsv(pairs) if mark == "\t" else delimited(pairs, lineterminator="\n")
    if draw(st.booleans()):
        skip = {"on_invalid_row": "skip"}
        return Case(name, load({name: f"{body}{ragged}\n".encode()}, **skip), written(pairs))
    row = body.count("\n") + 1 if name == "train.tsv" or "\r" not in body else None
    return bad(name, f"{body}{ragged}\n", name, f"row {row or ''}", "column '", "cells")


@kind("csv and tsv: no header")
def _(draw: Any) -> Case:
    pairs = [(f"a {text}", label) for text, label in draw(pairs_of(texts(without='"\t\n\r')))]
    mark, name = draw(st.sampled_from([("\t", "train.tsv"), (",", "train.csv")]))
    pairs = [(text, "x" if label == "label" else label) for text, label in pairs]
    return bad(name, delimited(pairs[1:], pairs[0], delimiter=mark), name, "expected a column", "line with the names")


@kind("workbooks, archives, web pages and pointers")
def _(draw: Any) -> Case:
    start = draw(
        st.sampled_from(
            [
                b"PK\x03\x04",
                b"\xd0\xcf\x11\xe0",
                b"<!DOCTYPE html>",
                b"version https://git-lfs.github.com/spec/v1\n",
                b"PAR1",
            ]
        )
    )
    name = draw(st.sampled_from(["train.csv", "train.tsv", "train.jsonl", "train.json", "train.xlsx", "train.ods"]))
    return bad(name, start + draw(st.binary(min_size=1, max_size=60)), name)


@kind("json: arrays in an object, lines named .json")
def _(draw: Any) -> Case:
    pairs = draw(pairs_of(ANY_TEXTS))
    content = draw(st.sampled_from([json.dumps({"version": 1, "data": records(pairs)}), jsonl(pairs, True)]))
    return good("train.json", content, pairs)


@kind("json: columns, splits or scalars in place of an array")
def _(draw: Any) -> Case:
    rows = records(draw(pairs_of(ANY_TEXTS)))
    columns = {"text": {"0": "a", "1": "b"}, "label": {"0": "x", "1": "y"}}
    content = draw(
        st.sampled_from([columns, {"train": rows, "test": rows}, 5, None, "text", [], [[]], {}, {"data": []}])
    )
    return bad("train.json", json.dumps(content), "train.json", "expected")


_VALUES = st.sampled_from([None, 5, 1.5, True, [], ["a"], {}, {"a": 1}, "", " ", "\u200b", "\x00", "\ud800"])


@kind("jsonl and json: a text or label of another type, or none")
def _(draw: Any) -> Case:
    pairs = draw(pairs_of(ANY_TEXTS))
    column = draw(st.sampled_from(["text", "label"]))
    wrong = draw(_VALUES.filter(lambda value: column == "text" or isinstance(value, (list, dict, str, type(None)))))
    if column == "label" and wrong == "\u200b":
        wrong = ""
    faulty = {"text": "x", "label": pairs[0][1], column: wrong}
    if draw(st.booleans()):
        del faulty[column]
    rows = [*records(pairs), faulty]
    content = "\n".join(json.dumps(row) for row in rows)
    name = draw(st.sampled_from(["train.jsonl", "train.json"]))
    raw = (content if name == "train.jsonl" else json.dumps(rows)).encode()
    if draw(st.booleans()):
        return Case(name, load({name: raw}, on_invalid_row="skip"), written(pairs))
    return bad(name, raw, name, f"row {len(rows)}", f"column '{column}'")


@kind("jsonl and json: a key twice, nesting without end")
def _(draw: Any) -> Case:
    line = draw(st.sampled_from(['{"text": "a", "text": "b", "label": "x"}', "[" * 100_000, '{"text": ' * 50_000]))
    pairs = draw(pairs_of(ANY_TEXTS))
    if draw(st.booleans()):
        return bad("train.jsonl", f"{jsonl(pairs)}{line}\n", "train.jsonl", f"row {len(pairs) + 1}")
    return bad("train.json", line, "train.json", "expected JSON")


@kind("jsonl and parquet: integer, float and boolean labels")
def _(draw: Any) -> Case:
    kinds = st.sampled_from([[0, 1, 2], [True, False], [0.0, 1.0], [0.5, 1.5], [-1, 1]])
    labels = draw(kinds)
    chosen = [*labels, *draw(st.lists(st.sampled_from(labels), max_size=4))]
    content = [draw(ANY_TEXTS) for _ in chosen]
    pairs = [
        (t, str(int(w)) if isinstance(w, float) and w == int(w) else str(w))
        for t, w in zip(content, chosen, strict=True)
    ]
    if draw(st.booleans()):
        rows = [{"text": t, "label": w} for t, w in zip(content, chosen, strict=True)]
        return good("train.jsonl", "\n".join(map(json.dumps, rows)), pairs)
    return good("train.parquet", parquet_bytes(pa.table({"text": content, "label": chosen})), pairs)


@kind("jsonl and parquet: NaN and null among labels")
def _(draw: Any) -> Case:
    labels = [0.0, 1.0, draw(st.sampled_from([None, float("nan")]))]
    content = [draw(ANY_TEXTS) for _ in labels]
    name = draw(st.sampled_from(["train.jsonl", "train.parquet"]))
    rows = [{"text": t, "label": w} for t, w in zip(content, labels, strict=True)]
    raw = (
        parquet_bytes(pa.Table.from_pylist(rows))
        if name == "train.parquet"
        else "\n".join(map(json.dumps, rows)).encode()
    )
    if draw(st.booleans()):
        return Case(name, load({name: raw}, on_invalid_row="skip"), [(content[0], "0"), (content[1], "1")])
    return bad(name, raw, name, "row 3", "column 'label'")


@kind("parquet: class labels of `datasets`")
def _(draw: Any) -> Case:
    names = draw(st.lists(st.sampled_from(LABELS), min_size=2, max_size=5, unique=True))
    numbers = [*range(len(names)), *draw(st.lists(st.integers(0, len(names) - 1), max_size=4))]
    content = [draw(ANY_TEXTS) for _ in numbers]
    features = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}, "text": {"_type": "Value"}}}}
    table = pa.table({"text": content, "label": pa.array(numbers, pa.int64())})
    wrong = draw(st.sampled_from([None, None, -1, len(names), 10**6]))
    if wrong is not None:
        table = pa.concat_tables([table, pa.table({"text": ["x"], "label": [wrong]})])
    raw = parquet_bytes(table.replace_schema_metadata({b"huggingface": json.dumps(features).encode()}))
    if wrong is not None:
        return bad("train.parquet", raw, "train.parquet", f"row {len(numbers) + 1}", "column 'label'")
    return good("train.parquet", raw, [(t, names[i]) for t, i in zip(content, numbers, strict=True)])


@kind("parquet: columns of other types")
def _(draw: Any) -> Case:
    column = draw(st.sampled_from(["text", "label"]))
    values = draw(st.sampled_from([[b"a", b"b"], [["a"], ["b"]], [{"a": 1}, {"a": 2}]]))
    table = pa.table({"text": ["a", "b"], "label": ["x", "y"]})
    at = table.schema.get_field_index(column)
    return bad("train.parquet", parquet_bytes(table.set_column(at, column, pa.array(values))), "train.parquet", "row 1")


@kind("parquet: dictionaries and large strings")
def _(draw: Any) -> Case:
    pairs = draw(pairs_of(ANY_TEXTS))
    text = pa.array([t for t, _ in pairs], draw(st.sampled_from([pa.string(), pa.large_string()])))
    table = pa.table({"text": text, "label": pa.array([w for _, w in pairs]).dictionary_encode()})
    return good("train.parquet", parquet_bytes(table), pairs)


@kind("txt: one document a line")
def _(draw: Any) -> Case:
    documents = draw(
        st.lists(all_texts(without="\n\r").filter(lambda t: not t.startswith("\ufeff")), min_size=1, max_size=6)
    )
    raw = "\n".join(documents).encode()
    encoded = ENCODERS[draw(st.sampled_from(sorted(ENCODERS)))](raw.decode()) if draw(st.booleans()) else raw
    packed = draw(st.booleans())
    file = {"train.txt.gz" if packed else "train.txt": gzip.compress(encoded) if packed else encoded}
    return Case("train.txt", load(file, label_column=None), [(document, None) for document in documents])


@kind("txt: as labelled data")
def _(draw: Any) -> Case:
    raw = "\n".join(draw(st.lists(TSV_TEXTS, min_size=1, max_size=5))).encode()

    def read(folder: Path) -> Rows:
        (folder / "data.txt").write_bytes(raw)
        return task_from_files(folder / "data.txt").load("train", "eng_Latn").examples  # type: ignore[return-value]

    return Case("data.txt", read, None, mentions=("data.txt", "label"))


@kind("csv: languages in a column")
def _(draw: Any) -> Case:
    pairs = draw(pairs_of(ANY_TEXTS))
    wrong = draw(st.sampled_from(["", "../up", "a/b", "a\\b", "..", "a\0b", "\u200f"]))
    rows = [(*pair, "eng_Latn") for pair in pairs]
    file = delimited([*rows, ("x", pairs[0][1], wrong)], ("text", "label", "lang"))
    skip = {"on_invalid_row": "skip", "language_column": "lang"}
    if draw(st.booleans()):
        return Case("train.csv", load({"train.csv": file.encode()}, **skip), written(pairs))
    return bad("train.csv", file, "train.csv", "column 'lang'", language_column="lang")
