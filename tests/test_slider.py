"""The slider moves with a kernel and carries a page that moves without one."""

import base64
import json
import re

import ipywidgets
import pytest
from matplotlib.figure import Figure

from lnln.slider import FrameSlider, png


def draw(rate: float) -> Figure:
    figure = Figure(figsize=(1, 1))
    figure.text(0.5, 0.5, f"{rate:.2f}")
    return figure


@pytest.fixture
def slider() -> FrameSlider:
    return FrameSlider(draw, [0.0, 0.5, 1.0], key="test", alt="a number")


def test_live_slider_redraws_at_any_rate(slider: FrameSlider) -> None:
    handle, image = slider.children
    assert isinstance(handle, ipywidgets.FloatSlider)
    assert image.value == png(draw(0.5))
    handle.value = 0.37
    assert image.value == png(draw(0.37))


def test_page_holds_every_frame_and_nothing_from_outside(slider: FrameSlider) -> None:
    page = slider._repr_mimebundle_()["text/html"]
    found = re.search(r"const frames = (\[.*?\]), texts = (\[.*?\]);", page)
    assert found is not None
    frames, texts = (json.loads(part) for part in found.groups())
    assert [base64.b64decode(f) for f in frames] == [
        png(draw(rate)) for rate in (0.0, 0.5, 1.0)
    ]
    assert texts == ["0.00", "0.50", "1.00"]
    assert 'aria-label="missing rate r"' in page and 'alt="a number"' in page
    assert "http" not in page


def test_same_figure_gives_the_same_bytes() -> None:
    assert png(draw(0.2)) == png(draw(0.2)) != png(draw(0.3))
