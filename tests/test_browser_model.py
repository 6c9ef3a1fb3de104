"""The model that runs in the page answers what PyTorch answers."""

import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from playwright.sync_api import Browser, Page, Route
from tools import drawn_distributions, load_tool

import lnln
from lnln.data.batch import CLS, SEP, UNK
from lnln.data.simulated.corpus import GRID
from lnln.teaching.browser import BrowserLab, corpus_facts
from lnln.training.scoring.distributions import read_out

ROOT = Path(__file__).resolve().parents[1]
CHAPTER = "book/19_in_the_browser.html"
CHOICES = [30, 3, 17, 58, 101, 204]  # as in the chapter's parameters


@pytest.fixture(scope="module")
def files() -> Path:
    """The runtime and the exported model; fetched if they are not there yet."""
    tool = load_tool("browser_files")
    folder = ROOT / "_build" / "browser"
    try:
        tool.provide(folder)
    except tool.FetchError as error:
        pytest.skip(f"the runtime cannot be fetched: {error}")
    return folder


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def served(pages: Path, tmp_path: Path) -> Iterator[str]:
    """The pages on a local server."""
    site = tmp_path / "site"
    shutil.copytree(pages, site)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


def open_lab(browser: Browser, address: str) -> tuple[Page, list[str]]:
    """The chapter, and what it asked from elsewhere or complained about."""
    page, faults = browser.new_page(viewport={"width": 1280, "height": 900}), []

    def watch(route: Route) -> None:
        if route.request.url.startswith((address, "data:", "blob:")):
            route.continue_()
        else:
            faults.append(route.request.url)
            route.abort()

    page.route("**/*", watch)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(address + CHAPTER)
    return page, faults


def by_python(question: dict[str, Any]) -> dict[str, Any]:
    """What PyTorch and the exact posterior say, from the same rounded frames."""
    test = lnln.simulate("mini").test.batch.select(torch.tensor(CHOICES))
    lab = BrowserLab(test, key="x", weight=0)
    chosen = lab.data["utterances"][question["utterance"]]
    vocab = corpus_facts()["vocab"]
    ids = [CLS]
    for word, kept in zip(question["words"], question["kept"], strict=True):
        ids.append(vocab.index(word) if kept and word in vocab else UNK)
    ids.append(SEP)
    frames = {}
    for name, letter in (("audio", "a"), ("vision", "v")):
        x = torch.tensor(chosen[name]["frames"])
        kept = torch.tensor(chosen[name]["draws"]) >= question[letter]
        frames[name] = (x * kept[:, None])[None]
    batch = lnln.Batch(
        tokens=torch.tensor([ids]),
        token_lengths=torch.tensor([len(ids)]),
        audio=frames["audio"],
        audio_lengths=torch.tensor([frames["audio"].shape[1]]),
        vision=frames["vision"],
        vision_lengths=torch.tensor([frames["vision"].shape[1]]),
        labels=torch.zeros(1),
    )
    out = lnln.from_pretrained("mini")(batch)
    assert out.probabilities is not None
    found: dict[str, Any] = {"w": out.completeness.item()}
    for name, best, p in (
        ("probabilities", "model", out.probabilities.double().numpy()),
        ("posterior", "exact", lnln.posterior(batch)),
    ):
        median = float(read_out(p, "mae")[0])
        error = float(p[0] @ np.abs(GRID - median))
        found |= {name: list(p[0]), best: {"best": median, "error": error}}
    return found


def questions(count: int) -> Iterator[dict[str, Any]]:
    """Random sentences, from the vocabulary and beyond, and random erasures."""
    rng = np.random.default_rng(5)
    words = [w for w in corpus_facts()["vocab"] if w.isalpha()] + ["zebra", "quux"]
    for _ in range(count):
        number = int(rng.integers(1, 25))
        yield {
            "utterance": int(rng.integers(len(CHOICES))),
            "words": [str(w) for w in rng.choice(words, number)],
            "kept": [bool(k) for k in rng.random(number) > rng.random()],
            "a": float(rng.choice([0, 0.3, 0.65, 1])),
            "v": float(rng.choice([0, 0.3, 0.65, 1])),
        }


def test_answers_equal_those_of_python(
    browser: Browser,
    served: str,
    files: Path,
    shots: Path,
    tmp_path: Path,
) -> None:
    shutil.copytree(files, tmp_path / "site" / "_static" / "browser")
    page, faults = open_lab(browser, served)
    page.get_by_role("button", name="Load the model").click()
    lab = page.locator("#explorer-lab .explorer")
    page.wait_for_selector("#explorer-lab [data-answers]", timeout=60_000)
    for question in questions(50):
        found = lab.evaluate("(e, question) => e.answer(question)", question)
        expected = by_python(question)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            close = pytest.approx(value, abs=1e-4, rel=0)
            assert found[name] == close, (name, question)
    # The reader's road: type, erase a word, take the voice away.
    page.get_by_label("your own sentence").fill("It was not good!")
    said = lab.locator("[role=status]").last
    before = said.inner_text()
    lab.get_by_role("button", name="not: click to erase").click()
    page.get_by_label("voice missing").fill("1")
    page.wait_for_timeout(500)
    question = {"utterance": 0, "words": "it was not good".split(), "v": 0, "a": 1}
    expected = by_python(question | {"kept": [True, True, False, True]})
    text = said.inner_text()
    assert text != before
    best, error = expected["model"].values()
    told = text.replace("−", "-")
    assert f"LNLN answers {best:+.1f}, expecting to err by {error:.2f}" in told
    assert f"w = {expected['w']:.2f}" in told
    best, error = expected["exact"].values()
    assert f"The best answer is {best:+.1f}; it errs by {error:.2f}" in told
    for name, shares in drawn_distributions(lab).items():
        assert shares == pytest.approx(expected[name], abs=2e-3), name
    lab.screenshot(path=shots / "browser-model.png")
    assert faults == []
    page.close()


def test_missing_files_are_told(browser: Browser, served: str) -> None:
    page, _ = open_lab(browser, served)
    page.get_by_role("button", name="Load the model").click()
    told = page.locator("#explorer-lab [role=status]").first
    page.wait_for_function(
        "e => e.textContent.includes('could not be loaded')",
        arg=told.element_handle(),
        timeout=20_000,
    )
    assert "make book" in told.inner_text()
    assert page.locator("#explorer-computed-beforehand svg[role=img]").is_visible()
    page.close()


def test_page_opened_as_a_file_says_how_to_serve_it(
    browser: Browser,
    pages: Path,
) -> None:
    page = browser.new_page()
    page.goto((pages / CHAPTER).as_uri())
    told = page.locator("#explorer-lab [role=status]").first.inner_text()
    assert "python3 -m http.server" in told
    assert not page.get_by_role("button", name="Load the model").is_visible()
    page.close()


def test_weight_that_the_page_states_is_true(files: Path) -> None:
    served = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "mini.onnx")
    names = (*served, "ort-wasm-simd-threaded.wasm")
    size = sum((files / name).stat().st_size for name in names) / 1e6
    chapter = (ROOT / "book" / "19_in_the_browser.ipynb").read_text("utf-8")
    stated = chapter.partition('\\"weight\\":')[2].partition("}")[0]
    assert float(stated) == pytest.approx(size, abs=0.2) and size < 30
