"""Explorers show the same numbers with a kernel and without."""

import json
import re
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import torch
from ipywidgets import Dropdown, FloatSlider, HBox, jslink
from traitlets import dlink, link

from lnln.teaching.explorer import KINDS, VIEW, Explorer, module_of, plain, show

ROOT = Path(__file__).resolve().parents[1]


def look(rate: float, seed: int) -> dict[str, Any]:
    return {"value": rate / 3 + seed, "row": torch.tensor([rate, -0.00004])}


@pytest.fixture
def explorer() -> Explorer:
    grid = np.linspace(0, 1, 11)
    return Explorer("curves", look, key="test", rates=grid, seeds=[4, 7], start=0.3)


def stored(page: str) -> tuple[dict[str, Any], list[Any]]:
    """The state and the frames in the markup of a page."""
    call = re.search(r"model: standIn\((.*)\) \}\);\n</script>", page, re.DOTALL)
    assert call is not None
    state, end = json.JSONDecoder().raw_decode(call[1])
    return state, json.loads(call[1][end + 1 :])


def test_live_figure_asks_for_any_rate_and_seed(explorer: Explorer) -> None:
    assert explorer.frame == {"value": 4.1, "row": [0.3, 0.0]}
    explorer.rate = 0.37
    assert explorer.frame["value"] == round(0.37 / 3 + 4, 3)
    explorer.seed = 12
    assert explorer.frame["value"] == round(0.37 / 3 + 12, 3)


def test_figure_goes_into_boxes_and_links_both_ways(explorer: Explorer) -> None:
    slider, masks = FloatSlider(value=0.3, max=1), Dropdown(options=[4, 7, 12])
    link((slider, "value"), (explorer, "rate"))
    link((explorer, "seed"), (masks, "value"))
    # In the browser: both ends must be traits that the browser knows.
    jslink((slider, "value"), (explorer, "rate"))
    slider.value = 0.6
    assert explorer.frame["value"] == round(0.6 / 3 + 4, 3)
    explorer.rate = 0.9
    assert slider.value == 0.9
    masks.value = 12
    assert explorer.frame["value"] == round(0.9 / 3 + 12, 3)
    explorer.seed = 7
    assert masks.value == 7
    box = HBox([slider, explorer])
    assert box.get_state("children")["children"][1] == f"IPY_MODEL_{explorer.model_id}"


def test_rate_outside_becomes_the_nearest_inside(explorer: Explorer) -> None:
    link((FloatSlider(value=2.5, max=3), "value"), (explorer, "rate"))
    assert explorer.rate == 1.0
    explorer.rate = -1
    assert explorer.frame["value"] == 4.0


def test_buttons_that_count_can_drive_a_rate(explorer: Explorer) -> None:
    tenths = FloatSlider(value=3, max=10)
    dlink((tenths, "value"), (explorer, "rate"), lambda n: n / 10)
    tenths.value = 8
    assert explorer.frame["value"] == round(0.8 / 3 + 4, 3)


def test_page_has_the_figure_in_place_of_a_widget(
    explorer: Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[dict[str, Any]] = []
    monkeypatch.setattr(
        "lnln.teaching.explorer.display", lambda data, raw: shown.append(data)
    )
    explorer.controls = False
    box = HBox([explorer])
    show(box, on_page=explorer)
    (data,) = shown
    assert data[VIEW]["model_id"] == box.model_id
    assert data["text/html"] == explorer.page()
    assert data["text/plain"] == "HBox with Explorer('curves', key='test')"


def test_page_shows_what_the_live_figure_shows(explorer: Explorer) -> None:
    state, frames = stored(explorer.page())
    assert state["frame"] == explorer.frame and state["live"] is False
    for rate, row in zip(state["rates"], frames, strict=True):
        for seed, frame in zip(state["seeds"], row, strict=True):
            explorer.rate, explorer.seed = rate, seed
            assert frame == explorer.frame


def test_bundle_has_the_page_and_a_stable_text(explorer: Explorer) -> None:
    bundle = explorer._repr_mimebundle_()
    assert bundle["text/html"] == explorer.page()
    assert bundle["text/plain"] == "Explorer('curves', key='test')"


@pytest.mark.parametrize("kind", KINDS)
def test_module_is_whole_and_loads_nothing(kind: str) -> None:
    module = module_of(kind)
    assert "const figure = {" in module and "export default" in module
    assert not re.search(r"https?://(?!www\.w3\.org/)|\bimport\b|fetch\(", module)


def test_markup_in_a_text_cannot_end_the_script() -> None:
    def words(rate: float, seed: int) -> dict[str, Any]:
        return {"text": "</script><b>"}

    page = Explorer("curves", words, key="x", rates=[0.0, 0.5]).page()
    assert page.count("</script>") == 1
    assert stored(page)[1][0][0] == {"text": "</script><b>"}


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="choose from"):
        Explorer("pie", look, key="x", rates=[0.0, 0.5])
    with pytest.raises(ValueError, match="evenly spaced"):
        Explorer("curves", look, key="x", rates=[0.0, 0.2, 0.5])


def test_numbers_become_plain_and_rounded() -> None:
    given = {"a": np.float32(1.23456), 2: (torch.tensor(True), "x", -0.0001)}
    assert plain(given, 2) == {"a": 1.23, "2": [True, "x", 0.0]}
    assert str(plain(-0.0001, 2)) == "0.0"


def explorers_of_the_book() -> dict[str, str]:
    """The markup of every explorer in the chapters by its key."""
    found = {}
    for path in sorted(ROOT.glob("book/*.ipynb")):
        for cell in nbformat.read(path, 4).cells:
            for output in cell.get("outputs", []):
                markup = output.get("data", {}).get("text/html", "")
                for key in re.findall(r'id="explorer-([\w-]+)"', markup):
                    found[key] = markup
    return found


def test_every_drawing_is_used_with_the_present_code() -> None:
    used = set()
    for page in explorers_of_the_book().values():
        if "standIn({" not in page:
            continue  # the model in the browser, which has no frames
        kinds = [kind for kind in KINDS if module_of(kind) in page]
        assert kinds, "run `make chapters`"
        used.update(kinds)
        _, frames = stored(page)
        assert len(frames) >= 10
    assert used == set(KINDS)
