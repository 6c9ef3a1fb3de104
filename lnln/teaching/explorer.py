"""Drawn figures that a reader moves, with a kernel and without.

In JupyterLab an `Explorer` is a live widget: its slider asks the real model, at any
rate and under any mask seed. In a rendered page the same drawing code, inlined as
`text/html`, shows frames that were computed beforehand on a grid of rates and seeds.
Both forms draw what `Explorer.compute` returned, rounded once, so they agree.

An `Explorer` goes into boxes and links as any other ipywidget does. `show` displays
what a reader builds with it; where no kernel runs, the page's form stands in its place.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import torch
import traitlets
from IPython.display import display
from ipywidgets import DOMWidget, Layout

#: The JavaScript of the figures.
FOLDER = Path(__file__).with_name("explorers")
#: The drawings: modules of the folder `explorers`.
KINDS = tuple(sorted(p.stem for p in FOLDER.glob("[!_]*.js") if p.stem != "common"))
#: What JupyterLab, where it can, displays before any markup.
VIEW = "application/vnd.jupyter.widget-view+json"

_PAGE = """<div id="explorer-{key}"></div>
<script type="module">
{module}
render({{ el: document.getElementById("explorer-{key}"),
  model: standIn({state}, {frames}) }});
</script>"""


class Explorer(anywidget.AnyWidget):
    """A figure with a slider over the missing rate.

    Its traits `rate` and `seed` can be set, observed, and linked both ways; `frame` is
    what is drawn for them. A rate outside of `rates` becomes the nearest one inside.

    Args:
        kind: the drawing, one of `KINDS`.
        compute: from a rate and a mask seed to what is drawn: a dict of numbers,
            strings, lists, arrays and tensors, as the drawing expects it.
        key: name of the figure, one of its kind on the page.
        rates: evenly spaced rates of the page's frames; the live slider spans them.
        seeds: mask seeds of the page's frames; the live figure takes any.
        start: the rate shown first, one of `rates`.
        fixed: what the drawing needs beside frames: names, axes.
        digits: decimals to which every number is rounded.
        controls: whether the live figure has its own slider and mask seed; without
            them it waits for other widgets. The page's always has them.

    Raises:
        ValueError: an unknown kind, or rates that are not evenly spaced.
    """

    fixed = traitlets.Dict().tag(sync=True)
    rates: traitlets.List[float] = traitlets.List().tag(sync=True)
    seeds: traitlets.List[int] = traitlets.List().tag(sync=True)
    rate = traitlets.Float().tag(sync=True)
    seed = traitlets.Int().tag(sync=True)
    frame = traitlets.Dict().tag(sync=True)
    live = traitlets.Bool(True).tag(sync=True)
    controls = traitlets.Bool(True).tag(sync=True)

    def __init__(
        self,
        kind: str,
        compute: Callable[[float, int], dict[str, Any]],
        *,
        key: str,
        rates: Sequence[float],
        seeds: Sequence[int] = (0,),
        start: float = 0.5,
        fixed: dict[str, Any] | None = None,
        digits: int = 3,
        controls: bool = True,
    ) -> None:
        if kind not in KINDS:
            raise ValueError(f"kind {kind!r} is unknown; choose from {list(KINDS)}")
        if len(rates) < 2 or not np.allclose(np.diff(rates), rates[1] - rates[0]):
            raise ValueError("rates must be at least two, and evenly spaced")
        self.kind, self.key = kind, key
        self._compute, self._digits = compute, digits
        rates = [round(float(r), 4) for r in rates]
        self.frames = [[self.compute(r, s) for s in seeds] for r in rates]
        super().__init__(
            fixed=plain(fixed or {}, digits),
            rates=rates,
            seeds=list(seeds),
            rate=rates[rates.index(start)],
            seed=seeds[0],
            frame=self.frames[rates.index(start)][0],
            controls=controls,
            # Beside others in a box a drawing has no width of its own.
            layout=Layout(width="100%", min_width="0"),
        )
        self.observe(self._move, names=["rate", "seed"])

    @property
    def _esm(self) -> str:
        return module_of(self.kind)

    def compute(self, rate: float, seed: int) -> dict[str, Any]:
        """What is drawn at a rate and a seed, as plain rounded values."""
        found: dict[str, Any] = plain(self._compute(rate, seed), self._digits)
        return found

    @traitlets.validate("rate")
    def _inside(self, proposal: dict[str, Any]) -> float:
        return float(min(max(proposal["value"], self.rates[0]), self.rates[-1]))

    def _move(self, change: object) -> None:
        self.frame = self.compute(self.rate, self.seed)

    def _repr_mimebundle_(self, **options: Any) -> Any:
        bundle = super()._repr_mimebundle_(**options)
        data = dict(bundle[0] if isinstance(bundle, tuple) else bundle or {})
        data["text/plain"] = repr(self)
        data["text/html"] = self.page()
        return data

    def __repr__(self) -> str:
        return f"Explorer({self.kind!r}, key={self.key!r})"

    def page(self) -> str:
        """The figure as markup that needs no kernel and no network."""
        names = ("fixed", "rates", "seeds", "rate", "seed", "frame")
        state = {name: getattr(self, name) for name in names} | {"live": False}
        return _PAGE.format(
            key=self.key,
            module=module_of(self.kind),
            state=script_text(state),
            frames=script_text(self.frames),
        )


def show(widget: DOMWidget, *, on_page: Explorer) -> None:
    """Display a widget that needs a kernel, and a figure in its place on a page.

    Args:
        widget: any ipywidget, such as a box of controls around `on_page`.
        on_page: the figure whose frames a page, where no kernel runs, shows instead.
    """
    view = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
    name = f"{type(widget).__name__} with {on_page!r}"
    bundle = {"text/plain": name, "text/html": on_page.page(), VIEW: view}
    display(bundle, raw=True)


def module_of(kind: str) -> str:
    """The JavaScript module of a drawing: what all share, and its own part."""
    parts = (FOLDER / f"{name}.js" for name in ("common", kind))
    return "".join(part.read_text("utf-8") for part in parts)


def plain(value: Any, digits: int) -> Any:
    """Values as JSON knows them, numbers rounded; arrays become lists.

    Args:
        value: numbers, strings, arrays, tensors, and lists, tuples, dicts of them.
        digits: decimals.

    Returns:
        The same structure.
    """
    if isinstance(value, dict):
        return {str(name): plain(part, digits) for name, part in value.items()}
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(part, digits) for part in value]
    if isinstance(value, float):
        return round(value, digits) + 0.0  # no -0.0
    return value


def script_text(value: Any) -> str:
    """A value as JavaScript that may stand inside a page's script."""
    # "</script>" in a text would end the script.
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")
