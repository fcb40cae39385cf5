"""Pictures of an inspection: every one has its data, letters of all scripts are right, missing fonts are said."""

from __future__ import annotations

import errno
import io
import json
import subprocess
import sys
import warnings
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from glotfuse.inspection.results import (
    Alignment,
    Inspection,
    LanguageAlignment,
    LanguageTokenisation,
    LanguageWeights,
    LayerWeights,
    Projection,
    Similarity,
    TextWeights,
    WeightHistory,
)
from glotfuse.plotting import draw_inspection, fonts, missing_scripts
from glotfuse.plotting.canvas import PlottingError, new_figure
from glotfuse.plotting.weights import shortened, token_weights_figure

NAMES = {
    "layer_weights", "token_weights", "language_weights", "weights_over_training", "alignment", "projection",
    "tokenisation",
}  # fmt: skip
SAMPLES = {
    "Sinhala": "ආර්ථිකය",
    "Tamil": "பொருளாதாரம்",
    "Khmer": "សេដ្ឋកិច្ច",
    "Myanmar": "စီးပွားရေး",
    "Ethiopic": "ኢኮኖሚው",
    "Lao": "ເສດຖະກິດ",
    "Thai": "เศรษฐกิจ",
    "Devanagari": "अर्थव्यवस्था",
    "Arabic": "معیشت",
}


def example(tokens: tuple[str, ...] = ("<s>", "The", "economy", "</s>")) -> Inspection:
    """An inspection with something for every picture."""
    weights = (0.2, 0.3, 0.5)
    similarity = Similarity(0.5, 0.7, 0.9, 0.4)
    languages = ("eng_Latn", "sin_Sinh")
    projection = Projection("span", ((0.0, 1.0), (1.0, 0.0)), languages, ("sports", None), (0.6, 0.2))
    return Inspection(
        run="run",
        encoder="encoder",
        mixer="transformer_softmax",
        num_layers=3,
        split="test",
        layer_weights=LayerWeights(False, weights, (0.3, 0.1, 0.1), 20),
        texts=(TextWeights("The economy", None, tokens, tuple(range(len(tokens))), (weights,) * len(tokens), False),),
        languages=tuple(LanguageWeights(code, 2, 10, weights, (0.1, 0.1, 0.1)) for code in languages),
        history=WeightHistory((5, 10), (weights, weights)),
        alignment=Alignment("eng_Latn", 2, (LanguageAlignment("sin_Sinh", (similarity,) * 3, similarity, similarity),),
                            (projection,)),
        tokenisation=tuple(LanguageTokenisation(code, 2, 40, 10, 0.25, None, 0.1, 0.0) for code in languages),
        notes=("a note",),
    )  # fmt: skip


def only(monkeypatch: pytest.MonkeyPatch, *families: str) -> None:
    """Leaves only these fonts."""
    found = [font for font in fonts._fonts() if font[0] in families]
    monkeypatch.setattr(fonts, "_fonts", lambda: tuple(found))
    fonts._family_with.cache_clear()


@pytest.fixture(autouse=True)
def _forget_fonts() -> object:
    fonts._family_with.cache_clear()
    yield
    fonts._family_with.cache_clear()


def pixels(text: str) -> np.ndarray:
    """A text drawn in the font that comes with matplotlib."""
    figure = new_figure(4, 1, "")
    figure.text(0.5, 0.5, text, fontfamily=[fonts.DEFAULT], fontsize=24, ha="center")
    stream = io.BytesIO()
    figure.savefig(stream, format="rgba", dpi=80)
    return np.frombuffer(stream.getvalue(), dtype=np.uint8)


@pytest.mark.parametrize(("format", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_every_picture_has_its_data_beside_it(tmp_path: Path, format: str, start: bytes) -> None:
    found = example()
    paths = draw_inspection(found, tmp_path / "out", format)
    assert {path.stem for path in paths} == NAMES
    for path in paths:
        assert path.read_bytes().startswith(start)
        data = json.loads(path.with_suffix(".json").read_text("utf8"))
        assert data["run"] == "run"
        assert data[path.stem]
    data = json.loads((tmp_path / "out" / "token_weights.json").read_text("utf8"))
    assert data["token_weights"] == json.loads(json.dumps([asdict(text) for text in found.texts]))
    data = json.loads((tmp_path / "out" / "alignment.json").read_text("utf8"))["alignment"]
    assert (data["pivot"], data["num_rows"], data["languages"][0]["mixed"]["cka"]) == ("eng_Latn", 2, 0.9)


def test_an_inspection_of_little_draws_what_there_is(tmp_path: Path) -> None:
    found = example()
    little = Inspection(**{
        **{name: getattr(found, name) for name in vars(found)},
        "texts": (), "languages": (), "history": None, "alignment": None, "tokenisation": (),
    })  # fmt: skip
    assert [path.name for path in draw_inspection(little, tmp_path)] == ["layer_weights.png"]


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlottingError, match=r"png or svg; found 'pgn'.*Did you mean 'png'"):
        draw_inspection(example(), tmp_path, "pgn")


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PlottingError, match="Expected to write"):
        draw_inspection(example(), tmp_path / "file")


def test_a_full_disk_leaves_the_picture_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_inspection(example(), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("glotfuse.files.os.fsync", full)
    with pytest.raises(PlottingError, match=r"No space left on device.*Choose another folder with --out"):
        draw_inspection(example(), tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_without_matplotlib_the_message_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(PlottingError, match=r"pip install 'glotfuse\[plots\]'"):
        draw_inspection(example(), tmp_path)


def test_a_matplotlib_that_does_not_shape_text_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matplotlib.__version__", "3.10.9")
    with pytest.raises(PlottingError, match=r"3\.11 or newer.*found 3\.10\.9"):
        draw_inspection(example(), tmp_path)


def test_importing_needs_neither_torch_nor_matplotlib() -> None:
    code = (
        "import sys, glotfuse.plotting, glotfuse.cli.inspect, glotfuse.inspection.results; "
        "print([name for name in ('torch', 'transformers', 'matplotlib') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_letters_join_as_their_script_asks() -> None:
    assert not np.array_equal(pixels("ببب"), pixels("ب\u200cب\u200cب"))  # non-joiners keep letters apart


def test_right_to_left_text_runs_from_right_to_left() -> None:
    assert np.array_equal(pixels("אבג"), pixels("\u202dגבא\u202c"))  # overridden to run from left to right
    assert not np.array_equal(pixels("אבג"), pixels("גבא"))


def test_scripts_without_a_font_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, fonts.DEFAULT)
    assert missing_scripts(["The economy", SAMPLES["Sinhala"], SAMPLES["Khmer"] + " 12."]) == ["Khmer", "Sinhala"]
    assert missing_scripts(["Ọmọ ọ̀dọ́, Экономика, Οικονομία"]) == []
    assert "Khmer, Sinhala" in fonts.advice(["Khmer", "Sinhala"])


def test_tokens_without_a_font_are_shown_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, fonts.DEFAULT)
    figure = token_weights_figure(example(("<s>", SAMPLES["Sinhala"], "12", SAMPLES["Khmer"])).texts, "title")
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["<s>", "#2", "12", "#4"]


@pytest.mark.parametrize("script", sorted(SAMPLES))
def test_a_token_is_drawn_without_boxes_where_a_font_is_installed(script: str, tmp_path: Path) -> None:
    if missing_scripts([SAMPLES[script]]):
        pytest.skip(f"no font for {script} here")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of letters it has no font for
        figure = token_weights_figure(example((SAMPLES[script],)).texts, "title")
        figure.savefig(tmp_path / "tokens.png")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [SAMPLES[script]]


def test_dollar_signs_in_tokens_are_no_formulas(tmp_path: Path) -> None:
    figure = token_weights_figure(example(("$", r"a$\x$", "%_{")).texts, "$title")
    figure.savefig(tmp_path / "tokens.png")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["$", r"a$\x$", "%_{"]


def test_a_shortened_text_ends_with_a_whole_letter() -> None:
    assert shortened("short", 10) == "short"
    assert shortened("one two three four", 11) == "one two…"
    khmer = "សេដ្ឋកិច្ចសេដ្ឋកិច្ច"
    assert shortened(khmer, 4) == "សេ…"


def test_a_text_takes_the_font_of_its_script_and_shared_signs_from_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    devanagari = {ord(c) for c in SAMPLES["Devanagari"] + "।"}
    maps = {"a": devanagari, "b": devanagari, "c": set(map(ord, "abc।"))}
    monkeypatch.setattr(
        fonts, "_fonts", lambda: (("Noto Sans Bhaiksuki", "a"), ("Noto Sans Devanagari", "b"), (fonts.DEFAULT, "c"))
    )
    monkeypatch.setattr(fonts, "_charmap", lambda path: maps[path])
    fonts._family_with.cache_clear()
    assert fonts.font_families("।" + SAMPLES["Devanagari"]) == ["Noto Sans Devanagari", fonts.DEFAULT]
    assert fonts.font_families("a") == [fonts.DEFAULT]
    assert fonts.font_families("ก") is None
