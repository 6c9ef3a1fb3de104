"""Plots of several panels are not squeezed on a phone.

Images that are wider than `WIDE` get the class "wide", which the style sheet
lets scroll on a narrow screen; smaller ones stay readable there as they are.
"""

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

WIDE = 700  # pixels
SIGNATURE = b"\x89PNG\r\n\x1a\n"
VIEW_BOX = re.compile(rb'<svg[^>]* viewBox="\S+ \S+ (\d+)')


def width(path: Path) -> int:
    """The width of a PNG or SVG image in pixels; 0 of any other file."""
    with path.open("rb") as file:
        head = file.read(500)
    if head.startswith(SIGNATURE):
        return int.from_bytes(head[16:20])
    drawn = VIEW_BOX.search(head)
    return int(drawn[1]) if drawn else 0


def _doctree_read(app: Sphinx, doctree: nodes.document) -> None:
    for image in doctree.findall(nodes.image):
        path = Path(app.srcdir) / image["uri"].lstrip("/")
        if path.is_file() and width(path) > WIDE:
            image["classes"].append("wide")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the change.

    Args:
        app: the running Sphinx application.

    Returns:
        The extension's metadata.
    """
    app.connect("doctree-read", _doctree_read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
