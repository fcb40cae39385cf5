"""Recipes: one YAML file, one run. Unknown keys, wrong types and values out of range are all reported at once."""

from __future__ import annotations

import reprlib
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from glotfuse.errors import ConfigError, did_you_mean
from glotfuse.recipes.config import Recipe

QUICKSTART = Path(__file__).with_name("quickstart.yaml")
"""The recipe of `glotfuse quickstart`."""

SectionT = TypeVar("SectionT")

_NOT_YAML = (OSError, ValueError, RecursionError, yaml.YAMLError)
"""ValueError: no UTF-8, or a date that does not exist; RecursionError: nested too deeply."""
_SHORT = reprlib.Repr()  # aliases may make a short file a huge value
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 2, 200, 200


def recipe_from_dict(values: dict[str, Any], source: str = "recipe") -> Recipe:
    """Checks plain values and makes the recipe.

    Raises:
        ConfigError: With every problem found, each naming its key.
    """
    return section_from_dict(Recipe, values, source)


def section_from_dict(section: type[SectionT], values: dict[str, Any], source: str) -> SectionT:
    """Checks plain values of one config dataclass; see `recipe_from_dict`."""
    try:
        return TypeAdapter(section).validate_python(values)
    except ValidationError as error:
        problems = [_problem(section, dict(item)) for item in error.errors()]
        lines = "\n".join(f"  - {problem}" for problem in problems)
        raise ConfigError(f"{source}: {len(problems)} problem(s) found.\n{lines}") from None


def load_recipe(path: Path | str, overrides: list[str] | None = None) -> Recipe:
    """Reads a YAML recipe and applies `key.subkey=value` overrides (values are read as YAML).

    Raises:
        ConfigError: The file cannot be read or parsed, or a value does not fit.

    Example:
        >>> load_recipe(QUICKSTART, ["training.epochs=5"]).training.epochs
        5.0
    """
    path = Path(path)
    try:
        values = yaml.load(path.read_text("utf8"), _UniqueKeys)
    except FileNotFoundError:
        beside = sorted(p.name for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        raise ConfigError(
            f"Expected a recipe file; found nothing at {path}.{did_you_mean(path.name, beside)}"
        ) from None
    except _NOT_YAML as error:
        raise ConfigError(f"Expected a YAML file at {path}; it cannot be read: {error}") from None
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise ConfigError(f"Expected sections such as `encoder:` in {path}; found {type(values).__name__}.")
    values = {key: {} if value is None and _section(Recipe, key) else value for key, value in values.items()}
    for override in overrides or []:
        _apply(values, override)
    return recipe_from_dict(values, str(path))


def to_dict(config: Any) -> dict[str, Any]:
    """A config dataclass as plain values, for JSON or YAML."""
    return asdict(config)


def _apply(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise ConfigError(f"Expected --set key.subkey=value; found {override!r}.")
    *parents, last = key.strip().split(".")
    target = values
    for parent in parents:
        child = target.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(f"Expected a section at {parent!r} for --set {override}; found {_SHORT.repr(child)}.")
        target = child
    try:
        target[last] = yaml.safe_load(text)
    except _NOT_YAML as error:
        raise ConfigError(f"Expected a YAML value in --set {override}: {error}") from None


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that a mapping has twice, of which YAML would drop the first in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: list[Any] = []
        for key, _ in node.value:
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                problem = f"expected the key {key.value!r} once, found it again"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.append(key.value)
        return super().construct_mapping(node, deep)


def _problem(section: type[Any], item: dict[str, Any]) -> str:
    location = [str(part) for part in item["loc"]]
    key = ".".join(location)
    if item["type"] in {"unexpected_keyword_argument", "extra_forbidden"}:
        known = _known_keys(section, location[:-1])
        return f"{key}: unknown key; expected one of {', '.join(known)}.{did_you_mean(location[-1], known)}"
    return f"{key}: {item['msg'].removeprefix('Value error, ').rstrip('.')}; found {_SHORT.repr(item['input'])}."


def _known_keys(section: type[Any], parents: list[str]) -> list[str]:
    current: Any = section
    for parent in parents:
        current = _section(current, parent) if current else None
    return [f.name for f in fields(current)] if current else []


def _section(config: Any, key: str) -> Any:
    """The config dataclass of a section, None for a plain value."""
    hint = get_type_hints(config).get(key)
    return next((kind for kind in (hint, *get_args(hint)) if is_dataclass(kind)), None)
