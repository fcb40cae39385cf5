"""From a folder to a page: chooses the kind, renders the template, writes the file."""

from __future__ import annotations

import base64
import functools
import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from glotfuse.errors import DataError
from glotfuse.evaluation.comparison_data import load_comparison
from glotfuse.files import write_file
from glotfuse.html_report import formats
from glotfuse.html_report.comparison_page import comparison_values
from glotfuse.html_report.reading import kind_of
from glotfuse.html_report.run_page import run_values
from glotfuse.html_report.side_by_side import compare_inside
from glotfuse.languages.facts import script_name
from glotfuse.languages.names import is_low_resource, name_of
from glotfuse.run_folder import COMPARISON

_TEMPLATES = Path(__file__).parent / "templates"


def build_report(path: Path | str, *, split: str | None = None, max_examples: int = 20) -> str:
    """Builds the page of a run folder, of a comparison folder, or of the runs inside of a folder side by side.

    Args:
        path: Folder that `glotfuse train`, `eval`, `compare` or `quickstart` wrote.
        split: Split of a run to show; None takes test, else the only one. A comparison has one split.
        max_examples: Most mistakes that are shown of each language.

    Returns:
        A whole HTML document that needs no other file and no network.

    Raises:
        DataError: The folder holds none of these, or a file of it is damaged.
    """
    if max_examples < 0:
        raise DataError(f"Expected a number of examples of at least 0; found {max_examples}.")
    folder = Path(path)
    kind = kind_of(folder)
    if kind == "run":
        return _render("run.html.jinja", ("page.js", "run.js"), run_values(folder, split, max_examples))
    comparison = load_comparison(folder / COMPARISON) if kind == "comparison" else compare_inside(folder, split)
    return _render("comparison.html.jinja", ("page.js", "comparison.js"), comparison_values(folder, comparison))


def write_report(path: Path | str, out: Path | str, *, split: str | None = None, max_examples: int = 20) -> Path:
    """Builds the page and writes it whole or not at all.

    Args:
        path: Folder that `glotfuse train`, `eval`, `compare` or `quickstart` wrote.
        out: The page's file, ending in .html or .htm; one that is there is replaced.
        split: See `build_report`.
        max_examples: See `build_report`.

    Returns:
        The file.

    Raises:
        DataError: The folder holds none of these, a file of it is damaged, or the page cannot be written.
    """
    file = Path(out)
    if file.suffix.lower() not in (".html", ".htm") or file.is_dir():
        found = "a folder" if file.is_dir() else f"{file.name!r}"
        raise DataError(f"Expected a file name that ends in .html for the page; found {found}. Name one with --out.")
    content = build_report(path, split=split, max_examples=max_examples).encode("utf8", "replace")
    write_file(file, content, error=DataError, advice="Free some space or choose another place with --out.")
    return file


def _render(name: str, scripts: tuple[str, ...], values: dict[str, Any]) -> str:
    script = "\n".join((_TEMPLATES / part).read_text("utf8") for part in scripts)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    template = _environment().get_template(name)
    return template.render(
        style=Markup((_TEMPLATES / "style.css").read_text("utf8")),
        script=Markup(script),
        script_digest=digest,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        **values,
    )


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("glotfuse.html_report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":"), "allow_nan": False}
    environment.filters |= {
        name: getattr(formats, name) for name in ("percent", "p_value", "duration", "plain", "titled")
    }
    environment.filters |= {"name_of": name_of, "script_name": script_name, "low_resource": is_low_resource}
    environment.globals |= {"percent_range": formats.percent_range, "NOT_RECORDED": formats.NOT_RECORDED}
    return environment
