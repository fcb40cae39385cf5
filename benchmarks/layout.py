"""The shape of the package: modules at its root, circles of imports, lines. `python -m benchmarks.layout [FOLDER]`.

Every import counts, also those inside functions and under TYPE_CHECKING: they couple modules as well.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

PACKAGE = "glotfuse"


def modules(source: Path) -> dict[str, Path]:
    """Dotted name to file of every module in `source`, the package's folder."""
    found = {}
    for path in sorted(source.rglob("*.py")):
        parts = [PACKAGE, *path.relative_to(source).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: Mapping[str, Path]) -> set[str]:
    """Modules of the package that a file imports, wherever in it the import stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else node.module for name in names}
    return {name for name in found if name in known}


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of modules each of which imports, directly or not, all the others of its group."""
    reached = {name: set(_reachable(name, graph)) for name in graph}
    groups = {
        tuple(sorted({name, *(other for other in reached[name] if name in reached[other])}))
        for name in graph
        if name in reached[name]
    }
    return sorted(map(list, groups), key=len, reverse=True)


def _reachable(start: str, graph: Mapping[str, set[str]]) -> Iterator[str]:
    waiting, seen = list(graph[start]), set[str]()
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            yield name
            waiting += graph[name]


def main(source: Path) -> None:
    known = modules(source)
    graph = {name: imports(path, known) - {name} for name, path in known.items()}
    at_root = sorted(path.stem for path in known.values() if path.parent == source and path.stem != "__init__")
    found = circles(graph)
    lines = {path: len(path.read_text("utf8").splitlines()) for path in known.values()}
    longest = sorted(lines, key=lambda path: -lines[path])[:3]
    print(f"modules at the root: {len(at_root)} ({', '.join(at_root)})")
    print(f"circles of imports: {len(found)}")
    for group in found:
        print(f"  {len(group)}: {', '.join(group)}")
    print(f"modules: {len(known)}, lines: {sum(lines.values())}")
    print(f"longest: {', '.join(f'{path.relative_to(source)} {lines[path]}' for path in longest)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent / "src" / PACKAGE)
