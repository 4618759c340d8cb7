"""What minires offers: each `__all__` is right, and the public names are those in public_api.txt.

After a change on purpose: `python -m tests.test_public_api` writes the list anew; read its diff.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

import minires

__all__: list[str] = []

PINNED = Path(__file__).with_name("public_api.txt")
ORDER = (Path(__file__).parent / "layers.txt").read_text().split()
MODULES = [m.replace("kernels", "minires.kernels", 1) if m[0] == "k" else m for m in ORDER]

# one level deep is what users import from; what stands deeper is reached through these
PUBLIC = [
    m for m in MODULES if m.count(".") <= 1 and m not in ("minires.__main__", "minires.kernels")
]


def public_names() -> list[str]:
    """Each public module's names, one a line, as written in public_api.txt."""
    modules = {name: importlib.import_module(name) for name in sorted(PUBLIC)}
    return [f"{name}.{member}" for name, m in modules.items() for member in sorted(m.__all__)]


@pytest.mark.parametrize("name", [m for m in MODULES if m != "minires.__main__"])
def test_all_names_what_is_there(name: str):
    module = importlib.import_module(name)
    assert hasattr(module, "__all__"), f"{name} has no __all__"
    assert len(set(module.__all__)) == len(module.__all__)
    missing = [member for member in module.__all__ if not hasattr(module, member)]
    assert not missing, f"{name}.__all__ names what does not exist: {missing}"


def test_public_api_is_pinned():
    assert public_names() == PINNED.read_text().splitlines(), __doc__


def test_version_has_one_source():
    from minires.version import __version__

    assert minires.__version__ == __version__


if __name__ == "__main__":
    PINNED.write_text("\n".join(public_names()) + "\n")
