"""A missing-rate slider: the real model in JupyterLab, stored frames on a page.

A page has no kernel, so a plain `interact` is dead there. `FrameSlider` shows a live
ipywidgets slider where there is a kernel and carries a `text/html` copy of itself, in
which a native slider swaps pictures drawn beforehand.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import ipywidgets

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PAGE = """<div id="{key}" class="frame-slider">
<label>{label} <input type="range" min="0" max="{last}" value="{start}" step="1"
 aria-label="{label}"> <output>{text}</output></label><br>
<img style="max-width:100%" alt="{alt}" src="data:image/png;base64,{first}">
<script type="module">
const frames = {frames}, texts = {texts};
const box = document.getElementById("{key}");
box.querySelector("input").addEventListener("input", (event) => {{
  const i = Number(event.target.value);
  box.querySelector("img").src = "data:image/png;base64," + frames[i];
  box.querySelector("output").textContent = texts[i];
}});
</script></div>"""


class FrameSlider(ipywidgets.VBox):
    """A slider over the missing rate that moves with and without a kernel.

    Args:
        draw: from a rate to a figure.
        rates: rates drawn beforehand for the page; they span the live slider too.
        key: name of the element, one of its kind on the page.
        start: the rate shown first, one of `rates`.
        label: what the slider says.
        alt: what a screen reader says of the picture.
    """

    def __init__(
        self,
        draw: Callable[[float], Figure],
        rates: Sequence[float],
        *,
        key: str,
        start: float = 0.5,
        label: str = "missing rate r",
        alt: str = "",
    ) -> None:
        self.key, self.label, self.alt = key, label, alt
        self.rates, self.start = list(rates), list(rates).index(start)
        self.frames = [png(draw(rate)) for rate in rates]
        slider = ipywidgets.FloatSlider(
            start, min=min(rates), max=max(rates), step=0.01, description="r"
        )
        image = ipywidgets.Image(
            value=self.frames[self.start],
            layout={"align_self": "flex-start", "max_width": "100%"},
        )

        def redraw(change: dict[str, Any]) -> None:
            image.value = png(draw(change["new"]))

        slider.observe(redraw, names="value")
        super().__init__([slider, image])

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        data: dict[str, Any] = super()._repr_mimebundle_(**options)
        frames = [base64.b64encode(frame).decode() for frame in self.frames]
        texts = [f"{rate:.2f}" for rate in self.rates]
        data["text/plain"] = f"FrameSlider({self.key!r})"
        data["text/html"] = _PAGE.format(
            key=self.key,
            label=self.label,
            alt=self.alt,
            last=len(frames) - 1,
            start=self.start,
            text=texts[self.start],
            first=frames[self.start],
            frames=json.dumps(frames),
            texts=json.dumps(texts),
        )
        return data


def png(figure: Figure) -> bytes:
    """A figure as PNG bytes; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90, metadata={"Software": None})
    return buffer.getvalue()
