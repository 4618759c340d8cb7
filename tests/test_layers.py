"""The order of the modules: each imports only what stands above it in layers.txt.

The README's reading guide is the same list.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

__all__: list[str] = []

ROOT = Path(__file__).resolve().parents[1]
ORDER = (Path(__file__).parent / "layers.txt").read_text().split()
RANK = {module: rank for rank, module in enumerate(ORDER)}
# pathlib does not follow the symlink minires/kernels: each file comes once, as kernels/...
FILES = [p for folder in ("kernels", "minires") for p in sorted((ROOT / folder).rglob("*.py"))]

# the array code may be called from here; everything else composes differentiable ops
CALLERS = ("backend", "random", "graph", "functional", "optim", "data")
TOOLS = {
    *("kernels.isa", "kernels.compile_cache", "kernels.cases", "kernels.dispatch"),
    *("kernels.memory", "kernels.random", "kernels.im2col", "kernels.plan"),
}


def module_of(path: Path) -> str:
    """kernels/conv.py -> kernels.conv; minires/nn/__init__.py -> minires.nn."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return canonical(".".join(parts[:-1] if parts[-1] == "__init__" else parts))


def canonical(module: str) -> str:
    """The installed name minires.kernels.conv is the file kernels/conv.py."""
    return re.sub(r"^minires\.kernels\b", "kernels", module)


MODULES = {module_of(path): path for path in FILES}


def imports(module: str, path: Path) -> Iterator[tuple[int, str]]:
    """(line, module) for every import of ours anywhere in the file."""
    package = ("minires." if module.startswith("kernels") else "") + module
    if path.name != "__init__.py":
        package = package.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*package.split(".")[: -(node.level - 1) or None], base]).strip(".")
            members = [f"{base}.{alias.name}" for alias in node.names]
            names = [m if canonical(m) in MODULES else base for m in members]
        else:
            continue
        for name in map(canonical, names):
            if name.split(".")[0] in ("kernels", "minires"):
                yield node.lineno, name


def test_every_module_has_its_place():
    assert len(set(ORDER)) == len(ORDER)
    assert sorted(ORDER) == sorted(MODULES)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_only_what_stands_above(module: str):
    path = MODULES[module]
    for line, imported in imports(module, path):
        where = f"{path.relative_to(ROOT)}:{line} imports {imported}"
        assert imported in RANK, f"{where}, which is no module of ours"
        assert RANK[imported] < RANK[module], f"{where}, which stands below {module}"
        if module.startswith("kernels"):
            assert imported.startswith("kernels"), f"{where}: a kernel must stand alone"
        elif imported.startswith("kernels") and imported not in TOOLS:
            caller = module.split(".")[1]
            assert caller in CALLERS, f"{where}, but only {', '.join(CALLERS)} call kernels"


def spelled_out(text: str) -> Iterator[str]:
    """`minires/nn/{module,init}.py` names two modules."""
    brace = re.match(r"(.*)\{(.*)\}(.*)$", text)
    for part in brace[2].split(",") if brace else [None]:
        name = f"{brace[1]}{part.strip()}{brace[3]}" if brace and part else text
        name = name.removesuffix(".py").rstrip("/").replace("/", ".").removesuffix(".__init__")
        yield canonical(name)


@pytest.mark.skipif(not (ROOT / "README.md").exists(), reason="there is no README yet")
def test_readme_lists_the_modules_in_order():
    text = (ROOT / "README.md").read_text()
    guide = re.search(r"<!-- reading guide -->(.*)<!-- end of reading guide -->", text, re.DOTALL)
    assert guide, "the README marks its reading guide with <!-- reading guide --> comments"
    quoted = re.findall(r"`([^`\s]*(?:\{[^`}]*\})?[^`\s]*)`", guide[1])
    listed = [name for quote in quoted for name in spelled_out(quote) if name in RANK]
    assert listed == ORDER


def test_no_module_under_two_names():
    assert not [name for name in sys.modules if name.split(".")[0] == "kernels"]
