"""Serve MathJax from the pages themselves, so that they need no network."""

from importlib.util import find_spec
from pathlib import Path
from shutil import copyfile
from typing import Any

from sphinx.application import Sphinx

SCRIPT = Path("mathjax", "tex-svg-full.js")


def _copy_script(app: Sphinx, error: Exception | None) -> None:
    if error is not None or app.builder.format != "html":
        return
    # The name of the installed package has hyphens, so it cannot be imported.
    package = find_spec("sphinx-mathjax-offline")
    if package is None or package.origin is None:
        raise FileNotFoundError("sphinx-mathjax-offline is not installed")
    target = Path(app.outdir) / "_static" / SCRIPT
    target.parent.mkdir(parents=True, exist_ok=True)
    copyfile(Path(package.origin).parent / "static" / SCRIPT, target)


def setup(app: Sphinx) -> dict[str, Any]:
    """Point Sphinx at the local script and copy it when the pages are written.

    Args:
        app: the running Sphinx application.

    Returns:
        The extension's metadata.
    """
    app.config.mathjax_path = SCRIPT.as_posix()
    app.connect("build-finished", _copy_script)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
