"""A model that reads the same rows in every language, beside a copy and the LM on the text."""

from __future__ import annotations

from pathlib import Path

import pytest

from glotfuse.errors import DataError
from glotfuse.runs.reading import INSTRUCTION, parallel_rows, read_languages
from glotfuse.tasks import task_from_files
from tiny import tiny_model

ENGLISH = ["The team won.", "It rained.", "The economy is growing.", "A school opened."]
SINHALA = ["කණ්ඩායම ජයගත්තේය.", "වැස්ස වැටුණා.", "ආර්ථිකය වර්ධනය වෙමින් පවතී.", "පාසලක් විවෘත විය."]


def written(folder: Path, **languages: list[str]) -> Path:
    for code, texts in languages.items():
        (folder / code).mkdir(parents=True)
        rows = "".join(f"{text}\tsports\n" for text in texts)
        (folder / code / "test.tsv").write_text("text\tlabel\n" + rows, "utf8")
    (folder / "eng_Latn" / "train.tsv").write_text("text\tlabel\nA.\tsports\nB.\tscience\n", "utf8")
    return folder


def test_languages_share_their_rows_and_english_is_the_reference(tmp_path: Path) -> None:
    task = task_from_files(str(written(tmp_path / "data", eng_Latn=ENGLISH, sin_Sinh=SINHALA)), label_column="label")
    rows = parallel_rows(task, 2, seed=1)
    assert [row.row for row in rows["eng_Latn"]] == [row.row for row in rows["sin_Sinh"]]
    model = tiny_model()
    (found,) = read_languages(model, task, 3, seed=2)
    assert found.code == "sin_Sinh"
    assert len(found.outputs) == 3
    assert [SINHALA.index(text) for text in found.texts] == [ENGLISH.index(text) for text in found.references]
    assert found.outputs == model.generate(found.texts, instruction=INSTRUCTION, max_new_tokens=40)
    assert found.copy.chrf < 20


def test_rows_that_no_other_language_has_are_an_error(tmp_path: Path) -> None:
    folder = written(tmp_path / "data", eng_Latn=ENGLISH, sin_Sinh=SINHALA[:0])
    task = task_from_files(str(folder), label_column="label")
    with pytest.raises(DataError):
        parallel_rows(task, 2, seed=1)
