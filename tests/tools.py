"""The scripts of the book, which are in no package."""

import importlib.util
from pathlib import Path
from types import ModuleType

BOOK = Path(__file__).resolve().parents[1] / "book"


def load_tool(name: str, folder: str = "_tools") -> ModuleType:
    """Import a script of a folder of the book by its name without the suffix."""
    path = BOOK / folder / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
