"""The pages in a real browser, without a network."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from playwright.sync_api import Browser, Page, Route
from tools import drawn_distributions

import lnln
from lnln.data.simulated.corpus import GRID
from lnln.training.scoring.distributions import spread

ROOT = Path(__file__).resolve().parents[1]
EXPLORERS = {
    "one-utterance": "01_what_goes_missing",
    "attention-over-rate": "09_hyper_modality",
    "robustness": "14_robustness_curves",
    "umap-of-corrected-features": "15_umap",
    "confusion-over-rate": "16_confusion_matrices",
}
RATES = (0.0, 0.5, 1.0)


def names_of_pages() -> list[str]:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8"))
    listed = [entry["file"] for part in toc["parts"] for entry in part["chapters"]]
    return [toc["root"], *listed]


@pytest.fixture(params=[1280, 390], ids=["desk", "phone"])
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page that notes requests to the outside, which are refused, and errors."""
    size = {"width": request.param, "height": 900}
    context = browser.new_context(viewport=size)
    opened = context.new_page()
    opened.faults = []  # type: ignore[attr-defined]

    def watch(route: Route) -> None:
        if route.request.url.startswith("file:"):
            route.continue_()
        else:
            opened.faults.append(f"asks for {route.request.url}")  # type: ignore[attr-defined]
            route.abort()

    def note(fault: object) -> None:
        opened.faults.append(str(fault))  # type: ignore[attr-defined]

    context.route(re.compile("^(?!data:)"), watch)
    opened.on("pageerror", note)
    opened.on("console", lambda m: note(m.text) if m.type == "error" else None)
    yield opened
    context.close()


def visit(page: Page, pages: Path, name: str) -> None:
    page.goto((pages / f"{name}.html").as_uri())
    page.wait_for_load_state("load")
    if page.locator(".math").count():
        page.wait_for_selector("mjx-container", state="attached")


@pytest.mark.parametrize("name", names_of_pages())
def test_page_is_whole(page: Page, pages: Path, name: str) -> None:
    visit(page, pages, name)
    page.wait_for_timeout(200)
    assert page.faults == []  # type: ignore[attr-defined]
    raw = page.locator(".math:not(:has(mjx-container))").all_inner_texts()
    assert raw == [], "math that is not rendered"
    assert page.locator("mjx-merror").count() == 0
    said = " ".join(page.locator(".cell_output").all_inner_texts())
    assert "(children=" not in said, "a widget without a kernel"
    broken = "i => i.filter(x => !x.naturalWidth).map(x => x.alt || x.src.slice(0, 60))"
    assert page.locator("img:visible").evaluate_all(broken) == []
    too_wide = "document.documentElement.scrollWidth - innerWidth"
    assert page.evaluate(too_wide) <= 0, "wider than the screen"


def test_a_wide_plot_scrolls_on_a_phone(page: Page, pages: Path) -> None:
    visit(page, pages, "book/15_umap")
    assert page.viewport_size
    room = page.viewport_size["width"]
    images = page.locator(".cell_output > img")
    widths = images.evaluate_all("i => i.map(x => x.getBoundingClientRect().width)")
    # The histograms of one panel fit; the maps and the curves have several.
    assert [width > room for width in widths] == [False, room < 600, room < 600]
    visit(page, pages, "book/intro")
    drawn = page.locator("figure img").bounding_box()
    assert drawn and (drawn["width"] > room) == (room < 600)


def test_names_of_rows_leave_room_for_numbers(page: Page, pages: Path) -> None:
    visit(page, pages, "book/38_does_the_correction_help")
    cells = page.locator(".table-frame").first.locator("tbody td")
    ends = cells.evaluate_all("c => c.map(x => x.getBoundingClientRect().right)")
    assert page.viewport_size and max(ends) < page.viewport_size["width"]


@pytest.mark.parametrize("name", names_of_pages())
def test_page_is_light(pages: Path, name: str) -> None:
    """All that a page alone brings: its text, and the pictures that stand in it."""
    page = pages / f"{name}.html"
    text = page.read_text("utf-8")
    images = re.findall(r'<img[^>]* src="([^"]+)"', text)
    files = {(page.parent / source).resolve() for source in images}
    weight = sum(path.stat().st_size for path in {page.resolve(), *files})
    assert weight < 3_000_000


def test_search_works_without_a_network(page: Page, pages: Path) -> None:
    page.goto((pages / "search.html").as_uri() + "?q=completeness")
    page.wait_for_selector("#search-results li")
    found = page.locator("#search-results li a").all_inner_texts()
    assert any("Completeness check" in text for text in found)
    # Opened as a file, a page may not read others, so results have no excerpts.
    faults = page.faults  # type: ignore[attr-defined]
    assert not [fault for fault in faults if "http" in fault.split("'")[0]]


def test_faults_are_noticed(page: Page, tmp_path: Path) -> None:
    (tmp_path / "bad.html").write_text(
        '<script src="https://x.example/a.js"></script><script>oops()</script>'
    )
    page.goto((tmp_path / "bad.html").as_uri())
    told = " ".join(page.faults)  # type: ignore[attr-defined]
    assert "asks for https://x.example/a.js" in told and "oops" in told


def frame_of(page: Page, key: str) -> Any:
    return json.loads(
        page.locator(f"#explorer-{key} .explorer").get_attribute("data-frame") or ""
    )


def slide(page: Page, key: str, rate: float) -> str:
    """Move a slider; what the figure then says."""
    page.locator(f"#explorer-{key} input[type=range]").fill(str(rate))
    said = page.locator(f"#explorer-{key} [role=status]").inner_text()
    assert said.startswith(f"r = {rate:.2f}.")
    return said


@torch.no_grad()
def answers(key: str, rate: float, seed: int) -> dict[str, float]:
    """What Python finds for a figure: {pattern before a number: that number}."""
    data, model = lnln.simulate("mini"), lnln.from_pretrained("mini")
    test = data.test.batch
    if key == "one-utterance":
        test = test.select(torch.tensor([30])).trim()
    rates, holes = lnln.fixed_rates(len(test), rate), lnln.split_uniforms(test, seed)
    left = lnln.erase(test, rates, holes).batch
    out = model(left)
    if key == "one-utterance":
        p, q = lnln.posterior(left), out.probabilities.double().numpy()
        found = {"w = ": out.completeness.item()}
        for before, shares in (("answers ", q), ("best answer is ", p)):
            found[before] = float(shares[0] @ GRID)
            wide = before + r"[+-][\d.]+, give or take "
            found[wide] = float(spread(shares)[0])
        return found
    predicted = model.predict(test, rates, holes).read("mae").numpy()
    labels = test.labels.numpy()
    if key == "robustness":
        limit = lnln.bayes_limit(test, rate, (seed,))["mae"]
        error = float(np.abs(predicted - labels).mean())
        return {"Bayes limit ": limit, ", LNLN ": error}
    if key == "confusion-over-rate":
        entropy = lnln.laziness(predicted)["entropy"]
        acc7 = lnln.evaluate_predictions(predicted, labels)["acc7"]
        mine = "LNLN: Acc-7 "
        return {mine: acc7, mine + r"[\d.]+, entropy of answers ": entropy}
    if key == "attention-over-rate":
        one = test.select(torch.tensor([30]))
        left = lnln.erase(one, rates[:1], lnln.split_uniforms(one, seed)).batch
        out, found, before = model(left), {}, "to 3: "
        layers = model.model.hyper_modality.layers
        for layer, d in zip(layers, out.dominants, strict=True):
            maps = layer.attention_maps(d, out.embedded["a"], out.embedded["v"])
            rows = -(maps[1] * maps[1].log()).sum(dim=-1)
            found[before] = rows.mean().item()
            before += r"[\d.]+, "
        return found
    home = model(test).embedded["l"].mean(dim=1)
    unit = torch.cdist(home, home).sum() / (len(home) * (len(home) - 1))
    pair = (out.dominants[0].mean(dim=1), out.embedded["l"].mean(dim=1))
    away = [((x - home).norm(dim=1).mean() / unit).item() for x in pair]
    return {": corrected ": away[0], "uncorrected ": away[1]}


def assert_says(said: str, expected: dict[str, float]) -> None:
    """Two decimals, of numbers that were rounded to two or three before."""
    for before, value in expected.items():
        shown = re.search(before + r"([+-]?\d+\.\d+)", said.replace("−", "-"))
        assert shown, f"{before!r} in {said!r}"
        assert float(shown[1]) == pytest.approx(value, abs=0.0058), before


@pytest.mark.parametrize("key", EXPLORERS)
def test_slider_shows_what_python_finds(
    page: Page, pages: Path, shots: Path, key: str
) -> None:
    visit(page, pages, f"book/{EXPLORERS[key]}")
    seed = 3 if key == "one-utterance" else 0
    figure = page.locator(f"#explorer-{key}")
    for rate in RATES:
        assert_says(slide(page, key, rate), answers(key, rate, seed))
        width = page.viewport_size["width"] if page.viewport_size else 0
        figure.screenshot(path=shots / f"{key}-{width}-{rate}.png")
    seeds = figure.locator("select[aria-label='mask seed']")
    if seeds.count():
        before = frame_of(page, key)
        slide(page, key, 0.5)
        seeds.select_option(index=1)
        assert frame_of(page, key) != before
        said = figure.locator("[role=status]").inner_text()
        assert_says(said, answers(key, 0.5, seed + 1))


@pytest.mark.parametrize("key", EXPLORERS)
def test_figure_works_by_keyboard(page: Page, pages: Path, key: str) -> None:
    visit(page, pages, f"book/{EXPLORERS[key]}")
    figure = page.locator(f"#explorer-{key}")
    slider = figure.locator("input[type=range]")
    slider.focus()
    page.keyboard.press("End")
    assert slider.get_attribute("aria-valuetext") == "1.00"
    page.keyboard.press("ArrowLeft")
    assert float(slider.get_attribute("aria-valuetext") or 1) < 1
    page.keyboard.press("Home")
    assert "r = 0.00." in figure.locator("[role=status]").inner_text()
    # Every control can be reached, and is named for a screen reader.
    controls = figure.locator("input, select, button")
    for i in range(1, controls.count()):
        page.keyboard.press("Tab")
        focused = controls.nth(i).evaluate("e => e === document.activeElement")
        assert focused, f"control {i}"
    unnamed = "e => e.filter(x => !(x.ariaLabel || x.innerText)).length"
    assert controls.evaluate_all(unnamed) == 0


def test_methods_can_be_switched_off(page: Page, pages: Path) -> None:
    visit(page, pages, "book/14_robustness_curves")
    figure = page.locator("#explorer-robustness")
    lines = figure.locator("polyline")
    assert lines.count() == 4
    button = figure.get_by_role("button", name="linear baseline")
    button.press("Enter")
    assert lines.count() == 3 and button.get_attribute("aria-pressed") == "false"
    assert "linear" not in figure.locator("[role=status]").inner_text()


LIGHTNESS = """e => {
  const sum = (c) => c.match(/[\\d.]+/g).slice(0, 3).reduce((a, b) => a + +b, 0);
  let ground = e;
  while (/, 0\\)|transparent/.test(getComputedStyle(ground).backgroundColor))
    ground = ground.parentElement;
  return [getComputedStyle(e).color, getComputedStyle(ground).backgroundColor].map(sum);
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("key", EXPLORERS)
def test_figure_follows_the_theme(
    page: Page, pages: Path, shots: Path, key: str, theme: str
) -> None:
    visit(page, pages, f"book/{EXPLORERS[key]}")
    page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
    page.wait_for_timeout(400)
    root = page.locator(f"#explorer-{key} .explorer")
    ink, ground = root.evaluate(LIGHTNESS)
    assert (ink > ground + 300) if theme == "dark" else (ground > ink + 300)
    root.screenshot(path=shots / f"{key}-{theme}.png")


def test_distributions_are_drawn_as_python_finds_them(page: Page, pages: Path) -> None:
    """Bars at the exact posterior, the model's outline over them, on one axis."""
    visit(page, pages, "book/intro")
    test = lnln.simulate("mini").test.batch.select(torch.tensor([30])).trim()
    holes = lnln.split_uniforms(test, 3)
    figure = page.locator("#explorer-one-utterance")
    for rate in RATES:
        slide(page, "one-utterance", rate)
        rates = lnln.fixed_rates(1, rate)
        q = lnln.from_pretrained("mini").predict(test, rates, holes).probabilities
        p = lnln.posterior(lnln.erase(test, rates, holes).batch)
        assert q is not None
        drawn = drawn_distributions(figure)
        assert drawn["posterior"] == pytest.approx(p[0], abs=2e-3)
        assert drawn["probabilities"] == pytest.approx(q[0], abs=2e-3)


def test_front_page_repeats_the_figure_of_chapter_1(page: Page, pages: Path) -> None:
    said = []
    for name in ("intro", EXPLORERS["one-utterance"]):
        visit(page, pages, f"book/{name}")
        said.append(slide(page, "one-utterance", 0.7))
    assert said[0] == said[1]
