"""Every table and figure of the paper has a command, and the grid ones run."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lnln import PRESETS, LossWeights, Split, simulate, write_mmsa
from lnln.cli.main import main
from lnln.data.files import data_dir
from lnln.evaluation.tables import markdown
from lnln.models import METHODS
from lnln.paper.ablation import ablations, folder_name
from lnln.paper.printed import printed, side_by_side
from lnln.paper.reproduce import EXHIBITS, number, presets_of
from lnln.paper.tuning.study import read_best

ROOT = Path(__file__).resolve().parents[1]
SMALL = ["--epochs", "1", "--seeds", "1", "--quiet", "--device", "cpu"]
SMALL += ["--mask-seeds", "0", "--jobs", "1"]
CHAPTERS = ["--chapters", str(ROOT / "book")]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> str:
    """All exhibits share their runs."""
    return str(tmp_path_factory.mktemp("reproduce"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file of 40 utterances a split."""
    dataset, some = simulate("mini"), torch.arange(40)
    splits = {name: split.select(some) for name, split in dataset.splits.items()}
    path = tmp_path_factory.mktemp("data") / "small.pkl"
    write_mmsa(replace(dataset, splits=splits), path)
    return str(path)


def test_every_table_and_figure_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "--list"]) == 0
    listed = capsys.readouterr().out
    wanted = [f"table{k}" for k in range(1, 15)] + [f"figure{k}" for k in range(1, 9)]
    assert sorted(EXHIBITS) == sorted(wanted)
    for name in wanted:
        assert re.search(rf"^{name} ", listed, re.MULTILINE)


def test_every_chapter_that_is_named_exists() -> None:
    pages = {path.stem for path in (ROOT / "book").iterdir()}
    assert {exhibit.chapter for exhibit in EXHIBITS.values()} <= pages


def test_every_data_set_of_a_table_is_in_the_paper() -> None:
    for name, exhibit in EXHIBITS.items():
        if name.startswith("table"):
            for dataset in ("MOSI", "MOSEI", "SIMS"):
                assert (not printed(number(name), dataset).empty) == (
                    dataset in exhibit.datasets
                )


def test_the_papers_tables_compare_the_papers_methods_only() -> None:
    presets, titles = presets_of("table2", "mini", "MOSI")
    compared = {titles[name] for name in presets}
    assert compared == set(printed(9, "MOSEI")["method"]) and len(compared) == 8
    assert presets.keys() < METHODS.keys()


@pytest.mark.parametrize("table", [4, 5, 6, 7])
@pytest.mark.parametrize("dataset", ["MOSI", "SIMS"])
def test_ablations_have_the_names_of_the_paper(table: int, dataset: str) -> None:
    cells = printed(table, dataset)
    names = ablations(table, PRESETS["mini"], dataset)
    if not cells.empty:
        assert set(names) == set(cells.setting)


def test_ablations_change_something_and_only_what_is_the_same_has_one_name() -> None:
    base = PRESETS["mosi"]  # it has the weights that Table 7 turns
    presets = [p for table in (4, 5, 6, 7) for p in ablations(table, base).values()]
    names = {folder_name(p, base) for p in presets}
    assert len(names) == len({repr(p) for p in presets}) == 16
    assert ablations(4, base)["w/o Reconstructor"] == ablations(5, base)["w/o L_rec"]


@pytest.mark.parametrize(
    "name",
    [n for n, exhibit in EXHIBITS.items() if exhibit.kind in ("ablation", "methods")],
)
def test_grids_run_and_print_both_numbers(
    name: str, out: str, data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["reproduce", name, "--out", out, "--data", data, *SMALL]
    assert main([*command, "--dry-run"]) == 0
    planned = capsys.readouterr().out
    assert re.search(r"^\d+ of \d+ runs to do, on 40 ", planned, re.MULTILINE)
    assert main(command) == 0
    told = capsys.readouterr().out
    exhibit = EXHIBITS[name]
    if exhibit.kind == "ablation":
        for setting in ablations(number(name), PRESETS["mini"]):
            assert f"| {setting} |" in told.split("The paper's")[0]
    if name.startswith("table"):
        cells = printed(number(name), exhibit.datasets[0])
        assert markdown(side_by_side(cells)) in told
    assert main([*command, "--dry-run"]) == 0
    assert re.search(r"^0 of \d+ runs to do", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize(
    ("widths", "top", "preset"),
    [((5, 20), 3, "mosi"), ((74, 35), 3, "mosei"), ((33, 709), 1, "sims")]
    + [((8, 9), 3, "mosi")],
)
def test_a_file_has_the_settings_that_the_paper_has_for_it(
    widths: tuple[int, int],
    top: int,
    preset: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    dataset, some = simulate("mini"), torch.arange(20)
    splits = {}
    for name, split in dataset.splits.items():
        batch = split.batch.select(some)
        audio, vision = (
            batch.mask(m)[..., None].expand(-1, -1, width).float()
            for m, width in zip("av", widths, strict=True)
        )
        labels = (batch.labels / 3 * top * 5).round() / 5
        batch = replace(batch, audio=audio, vision=vision, labels=labels)
        ids = tuple(f"video$_${i}" for i in range(20))
        splits[name] = Split(batch, ids, split.raw_text[:20])
    scheme = "sims" if top == 1 else "mosi"
    write_mmsa(replace(dataset, splits=splits, scheme=scheme), tmp_path / "x.pkl")
    command = ["reproduce", "table7", "--data", str(tmp_path / "x.pkl"), "--dry-run"]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert f"--preset {preset}" in told and "at most 200 epochs" in told
    assert main([*command, "--preset", "mini"]) == 0
    assert "at most 30 epochs" in capsys.readouterr().out


def test_what_a_search_found_is_ablated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = data_dir() / "compare" / "earlier" / "lnln.json"
    earlier = read_best(stored)["settings"]
    presets, _ = presets_of("table5", "mini", "MOSI", {"lnln": earlier})
    assert presets["lnln_beta0"].loss == LossWeights(beta=0.0)
    assert presets["lnln_beta0"].train.epochs == 40
    command = ["reproduce", "table5", "--dry-run", "--out", str(tmp_path)]
    assert main([*command, "--settings", str(stored)]) == 0
    assert "at most 40 epochs" in capsys.readouterr().out
    assert main([*command, "--settings", str(stored.with_name("almt.json"))]) == 1
    assert "ALMT, which is not trained here" in capsys.readouterr().err


def test_runs_on_other_data_are_other_runs(out: str, data: str) -> None:
    small = ["reproduce", "table6", "--out", out, *SMALL]
    assert main([*small, "--data", data]) == 0
    assert main([*small, "--train-size", "50"]) == 0
    folders = [path for path in Path(out).iterdir() if (path / "table6").is_dir()]
    assert len(folders) == 2


@pytest.mark.parametrize("preset", ["mosi", "mosei", "sims"])
def test_settings_are_compared(preset: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "table1", "--preset", preset]) == 0
    lines = capsys.readouterr().out.splitlines()[2:]
    cells = [[cell.strip() for cell in line.split("|")[1:4]] for line in lines]
    told = {name: (paper, ours) for name, paper, ours in cells}
    assert len(told) == 16
    for name, (paper, ours) in told.items():
        if name.startswith(("loss", "vector", "batch", "initial", "epochs")):
            assert float(paper) == float(ours)


@pytest.mark.parametrize(
    "name", [n for n, exhibit in EXHIBITS.items() if exhibit.kind == "chapter"]
)
def test_figures_are_planned(
    name: str, out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["reproduce", name, "--out", out]
    assert main([*command, *CHAPTERS, "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert f"{EXHIBITS[name].chapter}.ipynb: source = simulated:mini" in told
    for chapters in ([], ["--chapters", out]):
        assert main([*command, *chapters]) == 1
        assert "(--chapters FOLDER)" in capsys.readouterr().err
    assert main([*command, *CHAPTERS, "--corruption", "words"]) == 1
    assert "leave out --corruption" in capsys.readouterr().err


def test_a_figure_from_other_data_needs_a_run_unless_it_shows_data_alone(
    out: str, data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--data", data, "--out", out, *CHAPTERS, *SMALL, "--dry-run"]
    for name, trained in (("figure8", True), ("figure4", False)):
        assert main(["reproduce", name, *options]) == 0
        told = capsys.readouterr().out
        assert f"{EXHIBITS[name].chapter}.ipynb: source = {data}" in told
        assert ("1 of 1 runs to do" in told) == (f", run = {out}" in told) == trained


@pytest.mark.nightly
@pytest.mark.parametrize(
    "name", [n for n, exhibit in EXHIBITS.items() if exhibit.kind == "chapter"]
)
def test_figures_are_drawn(name: str, out: str) -> None:
    assert main(["reproduce", name, "--out", out, *CHAPTERS]) == 0
    (drawn,) = Path(out).glob(f"*/{name}/{EXHIBITS[name].chapter}.ipynb")
    assert drawn.stat().st_size > 10_000
