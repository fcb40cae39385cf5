"""The package stays easy to find one's way in: few modules at its root, no circles of imports, no long files."""

from __future__ import annotations

from pathlib import Path

from benchmarks.layout import PACKAGE, circles, imports, modules

from paths import ROOT

SOURCE = ROOT / "src" / PACKAGE


def test_few_modules_stand_at_the_root() -> None:
    assert len([path for path in SOURCE.glob("*.py") if path.stem != "__init__"]) <= 10


def test_no_modules_import_each_other_in_a_circle() -> None:
    known = modules(SOURCE)
    assert circles({name: imports(path, known) - {name} for name, path in known.items()}) == []


def test_no_file_is_long() -> None:
    assert {
        path.name: n for path in SOURCE.rglob("*.py") if (n := len(path.read_text("utf8").splitlines())) > 330
    } == {}


def test_circles_are_found_wherever_an_import_stands(tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    (tmp_path / "__init__.py").write_text("")
    (tmp_path / "part" / "__init__.py").write_text("")
    (tmp_path / "part" / "a.py").write_text("from glotfuse.part import b\n")
    (tmp_path / "part" / "b.py").write_text("def f():\n    from glotfuse.c import x\n")
    (tmp_path / "c.py").write_text("if TYPE_CHECKING:\n    import glotfuse.part.a\n")
    (tmp_path / "d.py").write_text("import glotfuse.c\n")
    known = modules(tmp_path)
    found = circles({name: imports(path, known) - {name} for name, path in known.items()})
    assert found == [["glotfuse.c", "glotfuse.part.a", "glotfuse.part.b"]]
