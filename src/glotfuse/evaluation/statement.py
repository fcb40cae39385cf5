"""The comparison of two recipes in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from glotfuse.evaluation.comparison_data import GroupDifference, LanguageDifference

_LEVEL = 0.05
_UNLEARNED = 0.1
"""Difference in English accuracy from which on a difference elsewhere may be one of learning, not of transfer."""


def statement(
    first: str,
    second: str,
    average: GroupDifference,
    languages: Sequence[LanguageDifference],
    trained_once: Sequence[str] = (),
    english: Mapping[str, float] | None = None,
) -> str:
    """The comparison of two recipes in words.

    Args:
        first: A recipe.
        second: Another.
        average: Their difference over a group of languages.
        languages: Their difference in each language, with p-values corrected for their number.
        trained_once: Which of the two would come out otherwise with another seed, and have one run.
        english: Accuracy of each on English, where it was measured.
    """
    difference, p_value = _known(average.difference), _known(average.p_value)
    ahead, behind = (first, second) if difference >= 0 else (second, first)
    sign = 1 if difference >= 0 else -1
    low, high = sorted((sign * _known(average.low), sign * _known(average.high)))
    interval = f"95% CI {low * 100:+.1f} to {high * 100:+.1f}, p = {_p(p_value)}"
    gap = f"{abs(difference) * 100:.1f} points ({interval})"
    number = average.num_languages or len(languages)
    where = f"on average over {number} language{'s' if number > 1 else ''} ({average.title})"
    sure = [entry for entry in languages if _known(entry.p_adjusted) < _LEVEL]
    better = sum(sign * _known(entry.difference) > 0 for entry in sure)
    worse = len(sure) - better
    rest = len(languages) - len(sure)
    once = ""
    if trained_once:
        who = "Both were" if len(trained_once) == 2 else f"{trained_once[0]} was"
        once = f" {who} trained once: how much another run would differ is not in these figures."
    if english and english[ahead] - english[behind] > _UNLEARNED:
        once += (
            f" On English itself {ahead} has {english[ahead] * 100:.1f}% and {behind} {english[behind] * 100:.1f}%: "
            f"{behind} has learned the task less, so this says little of how well it transfers."
        )
    if difference == 0:
        return (
            f"{first} and {second} are equal {where}. Of {len(languages)} languages {rest} do not differ surely.{once}"
        )
    verb = "beats" if p_value < _LEVEL else "is ahead of"
    surely = "" if p_value < _LEVEL else ", which chance can explain"
    return (
        f"{ahead} {verb} {behind} by {gap} {where}{surely}. Of {len(languages)} languages it is better in {better}, "
        f"worse in {worse}, and {rest} do not differ surely (p < {_LEVEL}, Holm).{once}"
    )


def _known(value: float | None) -> float:
    assert value is not None, "a comparison that is being made has all figures"
    return value


def _p(value: float) -> str:
    return "0.001 or less" if value <= 0.001 else f"{value:.3f}"
