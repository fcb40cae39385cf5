"""Fonts for text of any script.

matplotlib lays text out with HarfBuzz and orders right-to-left text, but brings letters of few scripts. Those of the
others come from the fonts of the system or the user; Noto has them all.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from glotfuse.plotting.canvas import require_matplotlib

DEFAULT = "DejaVu Sans"
"""The font that comes with matplotlib."""

_PREFERRED = ("Noto Sans", "Noto Naskh", "Noto Serif", "Noto")
_INVISIBLE = ("Cc", "Cf", "Zs", "Zl", "Zp", "Cn", "Co", "Cs")
_COMMON = ("Zyyy", "Zinh", "Zzzz")
_DEFAULT_SCRIPTS = ("Latn", "Grek", "Cyrl", *_COMMON)
_OTHER_STYLES = re.compile("Bold|Italic|Oblique|Light|Thin|Black|Medium|Condensed")


def missing_scripts(texts: Iterable[str]) -> list[str]:
    """English names of the scripts in which no font at hand can write these texts, sorted.

    Raises:
        PlottingError: matplotlib is missing.
    """
    from fontTools import unicodedata as scripts

    found = set()
    for character in {c for text in texts for c in text}:
        script = scripts.script(character)
        if script not in _COMMON and _family_with(character) is None:
            found.add(str(scripts.script_name(script)))
    return sorted(found)


def font_families(text: str) -> list[str] | None:
    """Families that together write a text, for a matplotlib text's font family; None where some letter has no font."""
    from fontTools import unicodedata as scripts

    files = dict(_fonts())
    families: list[str] = []
    # signs that several scripts share come last, so that the script's own font writes them where it can
    for character in sorted(dict.fromkeys(text), key=lambda c: scripts.script(c) in _COMMON):
        if unicodedata.category(character) in _INVISIBLE:
            continue
        if any(ord(character) in _charmap(files[family]) for family in families):
            continue
        family = _family_with(character)
        if family is None:
            return None
        families.append(family)
    return [*(family for family in families if family != DEFAULT), DEFAULT]


def advice(scripts: Iterable[str]) -> str:
    """What to install so that these scripts can be drawn."""
    return (
        f"No font here writes {', '.join(scripts)}; tokens in it are shown by number. Install Noto fonts and run "
        "again: `apt-get install fonts-noto-core` on Debian and Ubuntu; elsewhere put the Noto Sans files of these "
        "scripts (fonts.google.com/noto) into your font folder, such as ~/.local/share/fonts."
    )


@functools.cache
def _family_with(character: str) -> str | None:
    """The family that writes a character: the default for Latin and its kin, else that of its script, else any."""
    from fontTools import unicodedata as scripts

    point = ord(character)
    if scripts.script(character) in _DEFAULT_SCRIPTS and point in _charmap(dict(_fonts())[DEFAULT]):
        return DEFAULT
    own = f"Noto Sans {scripts.script_name(scripts.script(character))}"
    for family, path in sorted(_fonts(), key=lambda font: font[0] != own):
        if point in _charmap(path):
            return family
    return None


@functools.cache
def _fonts() -> tuple[tuple[str, str], ...]:
    """Family and file of every upright regular font, the preferred ones first, matplotlib's own before the unknown."""
    require_matplotlib()
    from matplotlib import font_manager

    _add_new()
    found: dict[str, str] = {}
    for entry in font_manager.fontManager.ttflist:
        if entry.style == "normal" and entry.weight in (400, "normal", "regular", "book"):
            found.setdefault(entry.name, entry.fname)
    return tuple(sorted(found.items(), key=lambda font: (_rank(font[0]), font[0])))


def _rank(family: str) -> int:
    preferred = (rank for rank, start in enumerate(_PREFERRED) if family.startswith(start))
    return next(preferred, len(_PREFERRED) + (family != DEFAULT))


def _add_new() -> None:
    """Fonts that were installed since matplotlib made its list of fonts, which it does but once."""
    from matplotlib import font_manager

    known = {entry.fname for entry in font_manager.fontManager.ttflist}
    for path in sorted(set(font_manager.findSystemFonts()) - known):
        if _OTHER_STYLES.search(Path(path).stem):
            continue
        with suppress(OSError, RuntimeError, ValueError):  # a damaged font is as good as none
            font_manager.fontManager.addfont(path)


@functools.cache
def _charmap(path: str) -> frozenset[int]:
    """Code points that a font file has letters for; none for a file that cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()
