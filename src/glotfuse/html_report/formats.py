"""Values as the page shows them: percent, probabilities, durations, language tags, nested settings."""

from __future__ import annotations

import functools
import itertools
import math
import re
import string
from collections.abc import Mapping, Sequence
from datetime import timedelta

from glotfuse.languages.names import find_language

NONE = "–"
"""Stands where there is no value."""

NOT_RECORDED = "not recorded"
"""Stands where a run could have recorded something and did not."""

_LANGUAGE_TAG = re.compile(r"[a-z]{2,3}(-[a-z0-9]{2,8})*", re.IGNORECASE)


def finite(value: float | None, digits: int = 5) -> float | None:
    """Rounds a number for the page's data; None for a missing, infinite or undefined one, which JSON cannot hold."""
    return None if value is None or not math.isfinite(value) else round(value, digits)


def percent(value: float | None, *, sign: bool = False) -> str:
    """A fraction as percent with one decimal, `84.3`, with its sign where asked for, `+2.0`."""
    if finite(value) is None or value is None:
        return NONE
    shown = round(value * 100, 1) + 0.0  # adding 0.0 turns -0.0 into 0.0
    return f"{shown:+.1f}" if sign else f"{shown:.1f}"


def percent_range(low: float | None, high: float | None, *, sign: bool = False) -> str:
    """Both ends of an interval of fractions, `[78.7, 88.7]`."""
    if finite(low) is None or finite(high) is None:
        return ""
    return f"[{percent(low, sign=sign)}, {percent(high, sign=sign)}]"


def p_value(value: float | None) -> str:
    """A p-value with three decimals, `0.031`; below a thousandth `< 0.001`."""
    if finite(value) is None or value is None:
        return NONE
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def duration(seconds: float | None) -> str:
    """Seconds in words: `4 min 33 s`, `2 h 05 min`."""
    if finite(seconds) is None or seconds is None:
        return NOT_RECORDED
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(timedelta(seconds=round(seconds)).total_seconds()), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def plain(value: object) -> str:
    """Any JSON value in one line: lists with commas, mappings as `key: value`, null as a dash."""
    if value is None or value == "":
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {plain(part)}" for key, part in value.items()) or "none"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(plain, value)) or "none"
    return str(value)


def titled(key: str) -> str:
    """A key of a record as a title: `num_steps` becomes `Number of steps`."""
    if key == "lm":
        return "LM"
    words = key.replace("_", " ").removeprefix("num ")
    return f"Number of {words}" if key.startswith("num_") else words[:1].upper() + words[1:]


def language_tag(code: str) -> str:
    """The HTML `lang` value of a language code: `sin_Sinh` is `si-Sinh`; `und` where the code is no language tag.

    The shortest code comes first, as RFC 5646 (BCP 47) asks, for browsers choose fonts and line breaks by it.
    """
    language = find_language(code)
    name, _, script = (language.code if language else code).partition("_")
    tag = "-".join(filter(None, (_two_letters().get(name, name), script.replace("_", "-"))))
    return tag if _LANGUAGE_TAG.fullmatch(tag) else "und"


@functools.cache
def _two_letters() -> dict[str, str]:
    """Maps ISO 639-3 codes to ISO 639-1 codes where the language has one."""
    found: dict[str, str] = {}
    for letters in itertools.product(string.ascii_lowercase, repeat=2):
        language = find_language("".join(letters))
        if language:
            found.setdefault(language.code[:3], "".join(letters))
    return found
