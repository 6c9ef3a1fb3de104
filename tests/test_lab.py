"""Sliders of a reader's own in a real JupyterLab, driven as a reader drives them."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Browser, Page, Route

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.nightly
# Cells far from the window are drawn, too; nothing asks for news from outside.
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
# Small, but with each kind of control and of link; the explorer keeps its own slider.
BUILT = """import matplotlib.pyplot as plt
from ipywidgets import Dropdown, FloatSlider, HBox, Play, VBox
from ipywidgets import interactive_output, jslink
from traitlets import dlink

from lnln.teaching.explorer import Explorer, show


def look(rate, seed):
    return {"place": [[rate, 0.5]], "corrected": rate / 2, "uncorrected": seed}


fixed = {"home": [[0.0, 0.0], [1.0, 1.0]], "labels": [1.0]}
cloud = Explorer("cloud", look, key="made", rates=[0.0, 0.5, 1.0], fixed=fixed)
slider = FloatSlider(value=0.5, max=1, step=0.25)
masks = Dropdown(options=[0, 7])
play = Play(value=2, max=4, interval=500)
jslink((slider, "value"), (cloud, "rate"))
dlink((masks, "value"), (cloud, "seed"))
dlink((play, "value"), (slider, "value"), lambda quarters: quarters / 4)


def draw(rate, seed):
    plt.figure(figsize=(3, 2))
    plt.bar([0, 1], [rate, seed])
    plt.show()


plot = interactive_output(draw, {"rate": slider, "seed": masks})
box = VBox([HBox([slider, masks, play]), HBox([cloud, plot])])
show(box, on_page=cloud)"""


@dataclass
class Lab:
    """A running JupyterLab: its address, and the folder that it shows."""

    address: str
    folder: Path


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A JupyterLab with settings of its own, on a free port."""
    home = tmp_path_factory.mktemp("lab")
    for name, values in SETTINGS.items():
        stored = (
            home / f"config/lab/user-settings/@jupyterlab/{name}.jupyterlab-settings"
        )
        stored.parent.mkdir(parents=True, exist_ok=True)
        stored.write_text(json.dumps(values))
    (home / "work").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {
        "ServerApp.port": port,
        "ServerApp.root_dir": home / "work",
        "IdentityProvider.token": "book",
        "LabApp.expose_app_in_browser": True,
    }
    program = str(Path(sys.executable).with_name("jupyter-lab"))
    command = [program, "--no-browser", "--allow-root"]
    command += [f"--{name}={value}" for name, value in options.items()]
    folders = {f"JUPYTER_{n.upper()}_DIR": str(home / n) for n in ("config", "runtime")}
    environment = os.environ | folders | {"PYTHONPATH": str(ROOT)}
    address = f"http://127.0.0.1:{port}"
    with (home / "log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        until = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{address}/api?token=book", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None, (home / "log").read_text()
                assert time.monotonic() < until, (home / "log").read_text()
                time.sleep(0.2)
        yield Lab(address, home / "work")
    finally:
        server.terminate()
        server.wait(60)


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that can reach this machine only, and whose errors fail the test."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    opened, faults = context.new_page(), list[str]()

    def watch(route: Route) -> None:
        if "://127.0.0.1:" in route.request.url:
            route.continue_()
        else:
            faults.append(f"asks for {route.request.url}")
            route.abort()

    context.route("**/*", watch)
    opened.on("pageerror", lambda fault: faults.append(str(fault)))
    opened.set_default_timeout(300_000)
    yield opened
    context.close()
    assert faults == []


def run_all(page: Page, lab: Lab, name: str) -> None:
    """Open a notebook and run its cells."""
    # In a workspace of its own, else what was open before is open again.
    page.goto(f"{lab.address}/lab/workspaces/{Path(name).stem}/tree/{name}?token=book")
    page.wait_for_function(
        """name => {
          const shown = window.jupyterapp?.shell.currentWidget;
          return shown?.context?.path === name &&
            shown.sessionContext.session?.kernel?.status === "idle";
        }""",
        arg=name,
    )
    # Outputs that were stored are no result of this run.
    for command in ("clear-all-cell-outputs", "run-all-cells"):
        page.evaluate(f"jupyterapp.commands.execute('notebook:{command}')")


def wait_for(page: Page, selector: str, words: str) -> None:
    """Wait until an element says something."""
    page.locator(selector).get_by_text(words).first.wait_for()


def picture(page: Page) -> str:
    return page.locator(".explorer svg").first.inner_html()


def plot(page: Page) -> str:
    """The image in the `Output` beside the explorer."""
    found = page.locator(".widget-hbox .widget-output img").get_attribute("src")
    return found or ""


def changes(page: Page, before: str) -> None:
    """Wait until the `Output` has another image."""
    page.wait_for_function(
        "before => { const e = document.querySelector("
        "'.widget-hbox .widget-output img'); return e && e.src !== before; }",
        arg=before,
    )


def test_a_dashboard_moves_an_explorer_and_follows_it(
    page: Page, lab: Lab, shots: Path
) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(BUILT)])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, lab.folder / "built.ipynb")
    run_all(page, lab, "built.ipynb")
    wait_for(page, ".explorer", "r = 0.50. Distance")
    own = page.locator(".widget-hslider .noUi-handle")
    drawn, image = picture(page), plot(page)
    own.press("ArrowRight")
    wait_for(page, ".explorer", "corrected 0.38, uncorrected 0.00")
    changes(page, image)
    assert picture(page) != drawn
    assert page.locator(".explorer input[type=range]").input_value() == "0.75"
    image = plot(page)
    page.locator(".explorer input[type=range]").fill("0.25")
    wait_for(page, ".explorer", "corrected 0.13")
    wait_for(page, ".widget-hslider .widget-readout", "0.25")
    changes(page, image)
    page.locator(".widget-dropdown select").select_option("7")
    wait_for(page, ".explorer", "uncorrected 7.00")
    assert page.locator(".explorer input[type=number]").input_value() == "7"
    page.locator(".widget-play button").first.click()
    wait_for(page, ".explorer", "r = 1.00.")
    page.screenshot(path=shots / "lab-built.png")


def test_sliders_of_chapter_1(page: Page, lab: Lab, shots: Path) -> None:
    shutil.copy(ROOT / "book/01_what_goes_missing.ipynb", lab.folder)
    run_all(page, lab, "01_what_goes_missing.ipynb")
    wait_for(page, ".widget-interact", "clumsy absolutely terrible was")
    page.locator(".widget-interact .noUi-handle").press("Home")
    wait_for(page, ".widget-interact", "really stupid that felt truly clumsy")
    wait_for(page, ".explorer", "r = 0.50.")
    drawn = picture(page)
    page.locator(".explorer input[type=range]").fill("0.9")
    wait_for(page, ".explorer", "r = 0.90.")
    assert picture(page) != drawn
    page.locator(".widget-interact").scroll_into_view_if_needed()
    page.screenshot(path=shots / "lab-01.png")


def until(lab: Lab, name: str, words: str) -> None:
    """Give JupyterLab a chapter up to the cell that shows a panel."""
    notebook = nbformat.read(ROOT / "book" / name, as_version=4)
    last = next(i for i, c in enumerate(notebook.cells) if words in c.source)
    notebook.cells = notebook.cells[: last + 1]
    nbformat.write(notebook, lab.folder / name)


def test_dashboard_of_chapter_15(page: Page, lab: Lab, shots: Path) -> None:
    until(lab, "15_umap.ipynb", "show(VBox(")
    run_all(page, lab, "15_umap.ipynb")
    wait_for(page, ".explorer", "r = 0.50.")
    # The dashboard has the only slider.
    assert page.locator(".explorer input").count() == 0
    drawn, image = picture(page), plot(page)
    page.locator(".widget-hslider .noUi-handle").press("ArrowRight")
    wait_for(page, ".explorer", "r = 0.60.")
    changes(page, image)
    assert picture(page) != drawn
    # Where all is missing, another mask would change nothing.
    drawn, image = picture(page), plot(page)
    page.locator(".widget-dropdown select").select_option("4")
    changes(page, image)
    page.wait_for_function(
        "before => document.querySelector('.explorer svg').innerHTML !== before",
        arg=drawn,
    )
    page.locator(".explorer [role=status]").scroll_into_view_if_needed()
    page.screenshot(path=shots / "lab-15.png")


def told(page: Page, before: list[float] | None = None) -> list[float]:
    """The sentiment and w that a panel says, once they are others than before."""
    found = page.wait_for_function(
        """before => {
          const panel = document.querySelector(".widget-hbox .widget-output");
          const said = panel?.innerText.match(/[-+]?\\d\\.\\d\\d/g)?.map(Number);
          return said?.length === 2 && String(said) !== String(before) && said;
        }""",
        arg=before,
    )
    return list(found.json_value())


def test_panel_of_chapter_33(page: Page, lab: Lab, shots: Path) -> None:
    until(lab, "33_your_own_clips.ipynb", "interactive_output(look")
    run_all(page, lab, "33_your_own_clips.ipynb")
    damaged = told(page)
    image = plot(page)
    page.get_by_label("lose the words").uncheck()
    heard = told(page, damaged)
    changes(page, image)
    assert heard[1] > damaged[1] + 0.2
    page.get_by_label("mute").uncheck()
    listened = told(page, heard)
    page.get_by_label("cover the camera").uncheck()
    whole = told(page, listened)
    # Sound and picture change the answer, and w knows the words only.
    assert len({answer for answer, _ in (heard, listened, whole)}) == 3
    assert min(heard[1], listened[1], whole[1]) > 0.9
    page.get_by_label("lose the words").check()
    part = told(page, whole)
    page.locator(".widget-hslider .noUi-handle").nth(1).press("End")
    lost = told(page, part)
    assert lost[1] < 0.3 < part[1]
    image = plot(page)
    page.get_by_label("clip", exact=True).select_option("test0187")
    told(page, lost)
    changes(page, image)
    page.locator(".widget-hbox .widget-output img").scroll_into_view_if_needed()
    page.screenshot(path=shots / "lab-33.png")
