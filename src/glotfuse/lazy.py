"""Public names that are imported when first used, so that importing a package stays fast."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any


def lazy_exports(package: str, modules: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Makes the `__getattr__` and `__dir__` of a package.

    The package repeats the imports under `TYPE_CHECKING`, for type checkers and editors.

    Args:
        package: The package's `__name__`.
        modules: The module that each public name comes from.
    """

    def get(name: str) -> Any:
        if name not in modules:
            message = f"module {package!r} has no attribute {name!r}"
            raise AttributeError(message, name=name, obj=sys.modules[package])
        value = getattr(import_module(modules[name]), name)
        setattr(sys.modules[package], name, value)  # from now on it is found without coming here
        return value

    def names() -> list[str]:
        own = vars(sys.modules[package]).items()
        present = [name for name, value in own if name.startswith("__") or isinstance(value, ModuleType)]
        return sorted({*modules, *present})

    return get, names
