"""What a process that only answers texts need not import.

With every model, transformers imports torch's compiler (for three decorators and one small class), torch's distributed
tensors (for `isinstance`) and SciPy (for the losses of object detection): near half of all modules, and of the time.
The compiler waits here until something asks for more than its decorators. Of the other two transformers asks whether
they are there, and remembers the answer; it is told that they are not, as on a machine without them.

Only the command line does this, in a process of its own that answers and ends: a library has no say in what else its
process is for.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial, wraps
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from glotfuse import distributed

_COMPILER = "torch._dynamo"
_WITHOUT_COMPILER = (f"{_COMPILER}._trace_wrapped_higher_order_op",)
"""Its parts that transformers imports and that need none of the others."""
_UNUSED = "scipy"


def import_lightly() -> None:
    """Imports torch and transformers without what answering does not use.

    It does nothing where they were imported before, or where a launcher started several processes.
    """
    if distributed.launched() or {"transformers", _UNUSED, _COMPILER} & set(sys.modules):
        return
    import torch

    _WaitingCompiler.install(torch)
    there = torch.distributed.is_available
    torch.distributed.is_available = lambda: False
    sys.modules[_UNUSED] = None  # type: ignore[assignment]  # Python's own way to say that a module is not there
    try:
        from transformers import utils

        utils.is_torch_distributed_available()
        utils.is_scipy_available()
    finally:
        torch.distributed.is_available = there
        del sys.modules[_UNUSED]


class _WaitingCompiler(ModuleType):
    """In the place of `torch._dynamo` until something asks for what is not here; then the compiler itself is imported.

    What was decorated before is then as the compiler's own decorators would have left it.

    Args:
        torch: The package that it is an attribute of.
        spec: Where the compiler itself is found.
    """

    def __init__(self, torch: ModuleType, spec: ModuleSpec):
        super().__init__(_COMPILER)
        self.__path__ = list(spec.submodule_search_locations or ())
        self._torch = torch
        self._marked: list[tuple[str, Callable[..., Any]]] = []
        self._finder = _Finder(self)

    @classmethod
    def install(cls, torch: ModuleType) -> None:
        """Puts one in the compiler's place."""
        spec = find_spec(_COMPILER)
        if spec is None:
            return
        waiting = cls(torch, spec)
        sys.modules[_COMPILER] = waiting
        torch.__dict__["_dynamo"] = waiting
        sys.meta_path.insert(0, waiting._finder)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.load(), name)

    def load(self) -> ModuleType:
        """The compiler itself."""
        if sys.modules.get(_COMPILER) is self:
            sys.meta_path.remove(self._finder)
            del sys.modules[_COMPILER], self._torch.__dict__["_dynamo"]
            compiler = import_module(_COMPILER)
            for name, function in self._marked:
                getattr(compiler, name)(function)
        return sys.modules[_COMPILER]

    def assume_constant_result(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The compiler's decorator of this name, which marks a function and returns it."""
        self._marked.append(("assume_constant_result", function))
        return function

    def allow_in_graph(self, function: Any) -> Any:
        """The compiler's decorator of this name, which marks a function and returns it."""
        if not callable(function):
            return self.load().allow_in_graph(function)
        self._marked.append(("allow_in_graph", function))
        return function

    def disable(self, fn: Any = None, recursive: bool = True, **options: Any) -> Any:
        """The compiler's decorator of this name: a function that it never compiles."""
        if fn is None:
            return partial(self.disable, recursive=recursive, **options)
        if isinstance(fn, type) or not hasattr(fn, "__name__"):
            return self.load().disable(fn, recursive, **options)
        kept: list[Callable[..., Any]] = []

        @wraps(fn)
        def call(*arguments: Any, **named: Any) -> Any:
            if sys.modules.get(_COMPILER) is self:
                return fn(*arguments, **named)
            if not kept:
                kept.append(self.load().disable(fn, recursive, **options))
            return kept[0](*arguments, **named)

        return call


class _Finder(MetaPathFinder):
    """Has the compiler itself imported before any part of it that is not light."""

    def __init__(self, waiting: _WaitingCompiler):
        self._waiting = waiting

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(f"{_COMPILER}.") or fullname in _WITHOUT_COMPILER:
            return None
        self._waiting.load()
        found = sys.modules.get(fullname)
        return None if found is None else ModuleSpec(fullname, _Imported(found))


class _Imported(Loader):
    """Gives a module that its package has imported already."""

    def __init__(self, module: ModuleType):
        self._module, self._spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec
