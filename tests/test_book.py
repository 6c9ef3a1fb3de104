"""The book builds without a warning, needs no network, and its chapters can be run."""

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch
import yaml
from tools import load_tool

import lnln
from lnln import (
    PRESETS,
    CheckpointError,
    DataError,
    open_study,
    read_mmsa,
    simulate,
    train,
    write_mmsa,
)
from lnln.training.settings import with_train

ROOT = Path(__file__).resolve().parents[1]

# Values other than the stored ones, with which every chapter must run as well.
OTHER_PARAMETERS: dict[str, dict[str, Any]] = {
    "01_what_goes_missing": {"seed": 1},
    "02_the_data": {"seed": 1},
    "03_random_missing": {"seed": 1},
    "04_scoring": {"seed": 1},
    "05_modality_embedding": {"seed": 1, "utterance": 3},
    "06_completeness_check": {"seed": 1, "steps": 300},
    "07_proxy_feature": {"seed": 1, "steps": 200},
    "08_correction_and_scales": {"seed": 1, "utterance": 3},
    "09_hyper_modality": {"seed": 1, "utterance": 3},
    "10_fusion_and_prediction": {"seed": 1},
    "11_reconstructor": {"seed": 1, "rate": 0.3},
    "12_assembled_model": {"seed": 1, "size": 7},
    "13_training": {"epochs": 4, "utterances": 300, "seed": 1},
    "14_robustness_curves": {"mask_seeds": [3, 4]},
    "15_umap": {"seed": 1},
    "16_confusion_matrices": {"seed": 1},
    "17_whole_modalities": {"seed": 1},
    "18_case_study": {"rate": 0.6, "seed": 2},
    "19_in_the_browser": {"seed": 1, "count": 20},
    "20_almt": {"seed": 1, "epochs": 1},
    "21_misa": {"seed": 1, "epochs": 1},
    "22_self_mm_and_tetfn": {"seed": 1, "epochs": 2, "tetfn_epochs": 2},
    "23_mmim": {"seed": 1, "epochs": 2},
    "24_cenet": {"seed": 1, "epochs": 2},
    "25_tfr_net": {"seed": 1, "epochs": 2},
    "26_seven_other_methods": {"reference": "MMIM"},
    "27_audit": {"seed": 1},
    "28_ablations": {"seed": 1},
    "29_protocol": {"mask_seeds": 12},
    "30_word_errors": {"seed": 1, "utterance": 3, "sentences": 1000},
    "31_how_sure": {"seed": 1},
    "32_from_install_to_a_number": {"utterances": 400, "epochs": 4},
    "33_your_own_clips": {"shown": "test0028", "share": 0.4, "row": 8},
    "34_your_own_method": {"seeds": [1111, 1112], "few": 80, "epochs": 4},
    "35_reporting": {"methods": ["lnln", "self_mm"], "seeds": [4, 5]},
    "36_p_rmf": {"seed": 1, "epochs": 2},
    "37_tf_mamba": {"seed": 1, "epochs": 2},
    "38_does_the_correction_help": {"confidence": 0.9},
}


chapters = load_tool("chapters")
CHAPTERS = chapters.chapter_paths()


def pages_of_toc() -> list[str]:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8"))
    listed = [entry["file"] for part in toc["parts"] for entry in part["chapters"]]
    return [toc["root"], *listed]


class Outside(HTMLParser):
    """Collects what a page would load from other machines."""

    ADDRESSES = {
        "iframe": "src",
        "img": "src",
        "link": "href",
        "script": "src",
        "source": "src",
    }

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        address = dict(attrs).get(self.ADDRESSES.get(tag, ""), None) or ""
        if address.lower().startswith(("http:", "https:", "//")):
            self.found.append(f"<{tag}> {address}")


def test_every_page_is_built(pages: Path) -> None:
    for page in [*pages_of_toc(), "index"]:
        assert (pages / f"{page}.html").is_file()


def test_pages_load_nothing_from_outside(pages: Path) -> None:
    for page in pages.rglob("*.html"):
        parser = Outside()
        parser.feed(page.read_text("utf-8"))
        assert not parser.found, page.name


def test_mathjax_is_served_from_the_pages(pages: Path) -> None:
    script = "_static/mathjax/tex-svg-full.js"
    assert (pages / script).stat().st_size > 1_000_000
    texts = [path.read_text("utf-8") for path in pages.rglob("*.html")]
    assert any(script in text for text in texts)


def test_outside_addresses_are_recognised() -> None:
    parser = Outside()
    parser.feed(
        '<script src="https://x.example/a.js"></script><img src="//x.example/b.png">'
        '<link href="HTTP://x.example/c.css"><img src="data:image/png;base64,">'
        '<a href="https://x.example">a link is no load</a><script src="d.js"></script>'
    )
    assert len(parser.found) == 3


def test_every_chapter_is_in_the_table_of_contents_and_tried() -> None:
    names = [path.stem for path in CHAPTERS]
    assert [f"book/{name}" for name in names] == [
        page for page in pages_of_toc() if (ROOT / f"{page}.ipynb").exists()
    ]
    assert names == list(OTHER_PARAMETERS)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_stored_chapter_has_no_problem(path: Path) -> None:
    assert list(chapters.problems(path)) == []


# Chapters that look into a trained model.
STUDIES = [
    path.stem
    for path in CHAPTERS
    if "run" in chapters.parameter_names(nbformat.read(path, 4))
]
# Chapters that want data only.
FILES = [
    "02_the_data",
    "12_assembled_model",
    "13_training",
    "20_almt",
    "21_misa",
    "22_self_mm_and_tetfn",
    "23_mmim",
    "24_cenet",
    "25_tfr_net",
    "36_p_rmf",
    "37_tf_mamba",
]


#: Utterances of a split of one's own file: more would only take longer.
FEW = 160


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A file in the published format, and a run trained on it.

    Its ids do not tell that it is simulated: to the book it is anybody's data.
    """
    folder = tmp_path_factory.mktemp("own")
    file, run = folder / "corpus.pkl", folder / "run"
    dataset = simulate("mini", 3, FEW)
    splits = {}
    for name, split in dataset.splits.items():
        few = split.select(torch.arange(min(len(split), FEW)))
        ids = tuple(f"video$_${i}" for i in range(len(few)))
        splits[name] = replace(few, ids=ids)
    write_mmsa(replace(dataset, splits=splits), file)
    preset = with_train(PRESETS["mini"], epochs=1)
    train(preset, read_mmsa(file), run, progress=False)
    return {"source": str(file), "run": str(run)}


def printed(notebook: nbformat.NotebookNode) -> str:
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    return "".join(o.get("text", "") for o in outputs)


def _tried(path: Path) -> Any:
    # What another seed alone could break waits for the night: nbval runs all anyway.
    late = path.stem not in [*STUDIES, *FILES]
    return pytest.param(path, id=path.stem, marks=[pytest.mark.nightly] if late else [])


@pytest.mark.parametrize("path", [_tried(path) for path in CHAPTERS])
def test_chapter_runs_with_other_parameters(path: Path, own: dict[str, str]) -> None:
    """Other seeds and, where the chapter takes them, a file and a run of its own."""
    parameters = dict(OTHER_PARAMETERS[path.stem])
    if path.stem in STUDIES:
        parameters |= own
    elif path.stem in FILES:
        parameters["source"] = own["source"]
    executed = chapters.run(path, parameters)
    tags = [cell.metadata.get("tags", []) for cell in executed.cells]
    assert ["injected-parameters"] in tags
    if path.stem in STUDIES:
        assert "Model: " + own["run"] in printed(executed)
    if path.stem == "13_training":
        assert "bit for bit: True" in printed(executed)


# Chapters that train a method for a few epochs.
TRIALS = [name for name in FILES if name >= "20"]


@pytest.mark.nightly
@pytest.mark.parametrize("name", [*STUDIES, *TRIALS])
def test_claims_hold_with_other_seeds(name: str) -> None:
    parameters = {"seed": 1} if name in TRIALS else OTHER_PARAMETERS[name]
    chapters.run(ROOT / "book" / f"{name}.ipynb", parameters)


def test_model_that_does_not_fit_is_refused(own: dict[str, str]) -> None:
    with pytest.raises(CheckpointError, match="lnln train --data simulated:full"):
        open_study("simulated:full")
    with pytest.raises(DataError, match="other sizes"):
        open_study("simulated:full", own["run"])


def test_claims_are_asserted_in_the_book_and_reported_elsewhere(
    own: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(AssertionError, match="pigs fly"):
        open_study().claim(False, "pigs fly")
    study = open_study(**own)
    assert not study.simulated
    study.claim(False, "pigs fly")
    study.claim(True, "words vanish")
    said = capsys.readouterr().out
    assert "DOES NOT hold here: pigs fly" in said
    assert "holds here: words vanish" in said
    first = study.data.test.batch.select(torch.tensor([0]))
    gone = lnln.erase(first, lnln.fixed_rates(1, 1.0), lnln.split_uniforms(first, 0))
    assert set(study.texts(gone.batch)[0].split()) == {"[UNK]"}
    (text,) = study.texts(first)
    assert text.startswith("#") and len(text.split()) == len(
        study.data.test.raw_text[0].split()
    )


def test_speed_on_a_gpu_is_shown(tmp_path: Path) -> None:
    shown = load_tool("chapter_parts", "_ext").speed_table
    path = tmp_path / "gpu.csv"
    path.write_text("what,times faster,machine\na step,7.5,Card A\na sweep,9,Card A\n")
    lines = shown(path).splitlines()
    assert lines[0] == "| what | times faster |"
    assert lines[2:5] == ["| a step | 7.5 |", "| a sweep | 9 |", ""]
    assert lines[5].startswith("On Card A. ") and "*Share of peak*" in lines[5]


def test_unknown_parameter_is_refused() -> None:
    with pytest.raises(ValueError, match="has no parameter sede"):
        chapters.run(CHAPTERS[0], {"sede": 1})


def stored(tmp_path: Path, cell: nbformat.NotebookNode) -> list[str]:
    """The problems of a chapter that holds parameters and one more cell."""
    first = nbformat.v4.new_code_cell(
        "seed = 0", execution_count=1, metadata={"tags": ["parameters"]}
    )
    notebook = nbformat.v4.new_notebook(cells=[first, cell])
    path = tmp_path / "chapter.ipynb"
    path.write_text(chapters.text_of(chapters.canonical(notebook)), "utf-8")
    return list(chapters.problems(path))


def code(source: str = "1", **rest: Any) -> nbformat.NotebookNode:
    return nbformat.v4.new_code_cell(source, **{"execution_count": 2} | rest)


def widget(**data: str) -> nbformat.NotebookNode:
    view = {chapters.WIDGET_VIEW: {"model_id": "x"}, "text/plain": "x"}
    return nbformat.v4.new_output("display_data", view | data)


@pytest.mark.parametrize(
    ("cell", "problem"),
    [
        (code(execution_count=3), "was not run from top to bottom"),
        (code(execution_count=None), "was not run from top to bottom"),
        (code("x\n" * 41), "cell c01 has 41 lines, more than 40"),
        (code("x" * 80), "cell c01 has 80 columns, more than 79"),
        (
            code(metadata={"tags": ["parameters"]}),
            "needs exactly one cell tagged `parameters`",
        ),
        (
            code(metadata={"tags": ["nbval-ignore-output"]}),
            "cell c01 keeps its output from being compared",
        ),
        (
            code(metadata={"tags": ["injected-parameters"]}),
            "cell c01 was injected by a run with other parameters",
        ),
        (
            code(outputs=[nbformat.v4.new_output("error", ename="KeyError")]),
            "cell c01 stopped with KeyError",
        ),
        (
            code(outputs=[widget()]),
            "cell c01 shows a widget that has no `text/html` copy",
        ),
    ],
)
def test_problems_are_found(
    tmp_path: Path, cell: nbformat.NotebookNode, problem: str
) -> None:
    assert stored(tmp_path, cell) == [problem]


def test_a_widget_with_a_copy_keeps_only_the_copy(tmp_path: Path) -> None:
    cell = code(outputs=[widget(**{"text/html": "<p>x</p>"})])
    assert stored(tmp_path, cell) == []
    text = (tmp_path / "chapter.ipynb").read_text("utf-8")
    assert chapters.WIDGET_VIEW not in text


def test_a_widget_that_is_on_no_page_keeps_no_view(tmp_path: Path) -> None:
    cell = code(outputs=[widget()], metadata={"tags": ["remove-output"]})
    assert stored(tmp_path, cell) == []
    text = (tmp_path / "chapter.ipynb").read_text("utf-8")
    assert chapters.WIDGET_VIEW not in text


def test_what_a_slider_shows_first_is_stored(tmp_path: Path) -> None:
    """As nbval sees it, which mimics no widgets."""
    source = "from ipywidgets import interact\n@interact(x=3)\ndef f(x):\n    print(x)"
    cells = [nbformat.v4.new_code_cell(source)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "x.ipynb")
    (cell,) = chapters.run(tmp_path / "x.ipynb").cells
    first, *rest = cell.outputs
    assert (first.output_type, first.text) == ("stream", "3\n")
    assert all(o.data["text/plain"] for o in rest)


def test_other_metadata_is_a_problem(tmp_path: Path) -> None:
    path = tmp_path / CHAPTERS[0].name
    notebook = nbformat.read(CHAPTERS[0], 4)
    notebook.metadata["papermill"] = {"duration": 1.5}
    path.write_text(chapters.text_of(notebook), "utf-8")
    assert list(chapters.problems(path)) == [
        "is not in canonical form; `make chapters` rewrites it"
    ]


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert chapters.main(["check"]) == 0
    with pytest.raises(SystemExit):
        chapters.main(["run", "--in-place", "-p", "seed", "1"])
    assert "needs --out" in capsys.readouterr().err


@pytest.fixture
def small_book(tmp_path: Path) -> Path:
    """A copy of the runner beside two chapters that run and one that stops."""
    book = tmp_path / "book"
    (book / "_tools").mkdir(parents=True)
    shutil.copy(ROOT / "book" / "_tools" / "chapters.py", book / "_tools")
    for name, source in {
        "01_threads": "import os\nprint(os.environ['OMP_NUM_THREADS'])",
        "02_stops": "1 / 0",
        "03_adds": "print(40 + 2)",
    }.items():
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
        nbformat.write(notebook, book / f"{name}.ipynb")
    return book


def run_book(book: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    tool = str(book / "_tools" / "chapters.py")
    command = [sys.executable, tool, "run", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_chapters_run_side_by_side_and_a_failure_is_named(small_book: Path) -> None:
    done = run_book(small_book, "--in-place", "--jobs", "2")
    assert done.returncode == 1
    lines = sorted(re.sub(r"^\[./3\] |\d+ s", "", x) for x in done.stdout.splitlines())
    assert lines == ["01_threads: ", "02_stops: FAILED", "03_adds: "]
    assert "ZeroDivisionError" in done.stderr
    assert done.stderr.endswith("Failed: 02_stops\n")
    texts = {p.stem: printed(nbformat.read(p, 4)) for p in small_book.glob("*.ipynb")}
    assert texts == {"01_threads": "1\n", "02_stops": "", "03_adds": "42\n"}


def test_a_kernel_that_does_not_start_is_started_once_more(
    small_book: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, tries = chapters.NoFrontend.execute, []

    def fails_at_first(client: Any, **options: Any) -> nbformat.NotebookNode:
        tries.append(client)
        if len(tries) == 1:
            raise RuntimeError("Kernel died before replying to kernel_info")
        return start(client, **options)

    monkeypatch.setattr(chapters.NoFrontend, "execute", fails_at_first)
    done = chapters.run(small_book / "03_adds.ipynb")
    assert printed(done) == "42\n" and len(tries) == 2


def test_a_run_that_succeeds_prints_one_line_a_chapter(
    small_book: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = run_book(small_book, "--out", str(out), "--jobs", "1", "03_adds")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"\[1/1\] 03_adds: \d+ s\n", done.stdout)
    assert [path.name for path in out.iterdir()] == ["03_adds.ipynb"]


@pytest.mark.parametrize("jobs", ["0", "-1", "two"])
def test_jobs_are_counted_from_one(
    jobs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        chapters.main(["run", "--in-place", "--jobs", jobs])
    assert "no whole number above 0" in capsys.readouterr().err
