"""The scripts of the book, which are in no package, and what a figure of it shows."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from playwright.sync_api import Locator

BOOK = Path(__file__).resolve().parents[1] / "book"


def load_tool(name: str, folder: str = "_tools") -> ModuleType:
    """Import a script of a folder of the book by its name without the suffix."""
    path = BOOK / folder / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def drawn_distributions(figure: Locator) -> dict[str, list[float]]:
    """What a figure draws over the sentiment, read off its bars and its outline.

    The bars are the exact posterior, and add up to 1; the outline, on the same axis, is
    the model's.
    """
    svg = figure.locator("svg[role=img]")
    bars = svg.locator("rect[fill=currentColor]").evaluate_all(
        "bars => bars.map((e) => Number(e.getAttribute('height')))"
    )
    points = str(svg.locator("polyline").last.get_attribute("points")).split()
    corners = np.array([float(point.split(",")[1]) for point in points])
    heights = corners[0] - corners[1:-1:2]
    unit = sum(bars)
    return {
        "posterior": [bar / unit for bar in bars],
        "probabilities": [float(height / unit) for height in heights],
    }
