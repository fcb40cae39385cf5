"""A table of named modules: one class and one decorator add an entry."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar, get_args

from pydantic import TypeAdapter, ValidationError
from torch import nn

from glotfuse.errors import ConfigError, did_you_mean

ModuleT = TypeVar("ModuleT", bound=nn.Module)

_PLAIN = (bool, int, float, str, type(None))


class Registry(Generic[ModuleT]):
    """Named classes of one kind (mixers or projectors), built by name with checked options.

    Args:
        kind: What the entries are, for messages (`"mixer"`).
        sizes: Names of the constructor's size arguments, which glotfuse fills in; the rest are options.
    """

    def __init__(self, kind: str, sizes: tuple[str, ...]):
        self.kind = kind
        self._sizes = sizes
        self._classes: dict[str, type[ModuleT]] = {}

    def register(self, name: str) -> Callable[[type[ModuleT]], type[ModuleT]]:
        """Returns a decorator that adds a class under `name`; an existing name is an error.

        Example:
            >>> @register_mixer("first")  # doctest: +SKIP
            ... class FirstLayer(Mixer): ...
        """

        def decorate(cls: type[ModuleT]) -> type[ModuleT]:
            if name in self._classes:
                raise ConfigError(f"The {self.kind} name {name!r} is taken by {self._classes[name].__name__}.")
            self._classes[name] = cls
            return cls

        return decorate

    def __iter__(self) -> Iterator[str]:
        return iter(self._classes)

    def __getitem__(self, name: str) -> type[ModuleT]:
        if name not in self._classes:
            raise ConfigError(
                f"Expected a {self.kind} out of {', '.join(self._classes)}; found {name!r}."
                f"{did_you_mean(name, self._classes)} A module of your own is added with "
                f"@register_{self.kind}({name!r}) before it is used."
            )
        return self._classes[name]

    def options(self, name: str) -> dict[str, Any]:
        """The options that `name` takes, with their defaults (`inspect.Parameter.empty` where there is none)."""
        parameters = inspect.signature(self[name]).parameters
        named = {key: p for key, p in parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
        return {key: p.default for key, p in named.items() if key not in self._sizes}

    def build(self, name: str, options: dict[str, Any] | None = None, **sizes: int) -> ModuleT:
        """Builds the module `name`.

        Raises:
            ConfigError: As `check`, or a value does not fit the sizes.
        """
        return self[name](**sizes, **self.check(name, options))

    def check(self, name: str, options: dict[str, Any] | None = None) -> dict[str, Any]:
        """The options as their annotated types, without building the module.

        Raises:
            ConfigError: An option is missing, the name or an option is unknown, or a value has the wrong type.
        """
        options = options or {}
        known = self.options(name)
        for key in options:
            if key not in known:
                expected = ", ".join(known) or "none"
                raise ConfigError(
                    f"The {self.kind} {name!r} takes the options: {expected}; found {key!r}.{did_you_mean(key, known)}"
                )
        for key, default in known.items():
            if default is inspect.Parameter.empty and key not in options:
                raise ConfigError(f"The {self.kind} {name!r} needs the option {key!r}; found none.")
        hints = _annotations(self[name])
        return {key: self._checked(name, key, value, hints.get(key)) for key, value in options.items()}

    def _checked(self, name: str, key: str, value: Any, hint: Any) -> Any:
        """The value as the type of its annotation: YAML reads `1e-1` as text."""
        if any(part not in _PLAIN for part in get_args(hint) or (hint,)):
            return value
        try:
            return TypeAdapter(hint).validate_python(value)
        except ValidationError as error:
            message = error.errors()[0]["msg"]
            raise ConfigError(f"The {self.kind} option {name}.{key}: {message}; found {value!r}.") from None


def _annotations(cls: type) -> dict[str, Any]:
    try:
        parameters = inspect.signature(cls, eval_str=True).parameters
    except NameError:  # annotated with a name that only type checkers see
        return {}
    return {key: parameter.annotation for key, parameter in parameters.items()}
