"""Directives that show the package: its rooms, and the method by equations.

`{room} data` documents every module of that room, so that none is forgotten.
`{equation} 5` shows the class or function of `lnln/models/lnln.py` whose
docstring carries the number; `{equation} LNLN.answer` the one of that name.
Without such a one no pages are built, so page and code cannot drift apart.
"""

import ast
import pkgutil
import re
from importlib import import_module
from pathlib import Path
from textwrap import dedent
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import lnln

MODEL = Path(lnln.__file__).parent / "models" / "lnln.py"
MODULE = """### `{0}`

```{{eval-rst}}
.. automodule:: {0}
   :members:
   :no-value:
```
"""
NUMBERS = re.compile(r"Eqs?\. ([\d, ]+)(?:and their sum (\d+))?")


def modules(room: str) -> list[str]:
    """The modules of a room of the package with something to document."""
    package = import_module(f"lnln.{room}")
    inside = pkgutil.walk_packages(package.__path__, f"lnln.{room}.")
    names = [f"lnln.{room}", *(info.name for info in inside)]
    return [name for name in names if _defines(name)]


def _defines(name: str) -> bool:
    """Whether a module has public functions or classes of its own."""
    members = vars(import_module(name)).items()
    return any(
        getattr(member, "__module__", "") == name and not key.startswith("_")
        for key, member in members
    )


def numbers_of(thing: ast.AST) -> set[str]:
    """The equations that a docstring names first, such as {"6", "10"}."""
    assert isinstance(thing, ast.ClassDef | ast.FunctionDef)
    told = NUMBERS.match(ast.get_docstring(thing) or "")
    return set(re.findall(r"\d+", told.group())) if told else set()


def defined(source: str) -> dict[str, ast.ClassDef | ast.FunctionDef]:
    """What a module defines by name; methods as in "LNLN.answer"."""
    found: dict[str, ast.ClassDef | ast.FunctionDef] = {}
    for thing in ast.parse(source).body:
        if isinstance(thing, ast.ClassDef | ast.FunctionDef):
            found[thing.name] = thing
        if isinstance(thing, ast.ClassDef):
            for part in thing.body:
                if isinstance(part, ast.FunctionDef):
                    found[f"{thing.name}.{part.name}"] = part
    return found


def code_of(wanted: str, source: str) -> str:
    """What computes an equation: a function, or a class without its set-up.

    Args:
        wanted: the number of an equation, or a name such as "LNLN.answer".
        source: of the module.

    Returns:
        Python, the first line at the margin.

    Raises:
        LookupError: there is none.
    """
    fitting = [
        thing
        for name, thing in defined(source).items()
        if wanted == name or wanted in numbers_of(thing)
    ]
    if not fitting:
        raise LookupError(f"{MODEL.name} has nothing for {wanted}")
    # Of several that name it, the one that computes it and little else.
    thing = min(fitting, key=lambda thing: len(numbers_of(thing)))
    parts: list[ast.stmt] = [thing]
    if isinstance(thing, ast.ClassDef):
        methods = (p for p in thing.body if isinstance(p, ast.FunctionDef))
        parts = [p for p in methods if p.name == "forward"]
    lines = source.split("\n")
    shown = ["\n".join(lines[p.lineno - 1 : p.end_lineno]) for p in parts]
    if isinstance(thing, ast.ClassDef):
        end = thing.body[0].end_lineno
        shown.insert(0, "\n".join(lines[thing.lineno - 1 : end]))
    return dedent("\n\n".join(shown))


class Room(SphinxDirective):
    """Document all modules of a room of the package."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return what autodoc makes of each module."""
        text = "\n".join(map(MODULE.format, modules(self.arguments[0])))
        return self.parse_text_to_nodes(text, allow_section_headings=True)


class Equation(SphinxDirective):
    """Show the code of an equation."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return a block of code."""
        self.env.note_dependency(str(MODEL))
        code = code_of(self.arguments[0], MODEL.read_text("utf-8"))
        return [nodes.literal_block(code, code, language="python")]


def _keep_colons(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: Any
) -> None:
    """Keep what stands before a colon from being taken for a type."""
    if what in ("attribute", "data", "property") and lines:
        lines.insert(0, "\\")  # which shows nothing


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives.

    Args:
        app: the running Sphinx application.

    Returns:
        The extension's metadata.
    """
    app.add_directive("room", Room)
    app.add_directive("equation", Equation)
    app.connect("autodoc-process-docstring", _keep_colons, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
