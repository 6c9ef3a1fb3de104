"""The grid of methods and seeds: nothing twice, tables from records, honest spreads."""

import csv
import math
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import lnln
from lnln.cli.main import main
from lnln.data.batch import DataError
from lnln.data.opening import Source, open_source
from lnln.evaluation import tables as compare
from lnln.evaluation.sweep import load_record
from lnln.evaluation.tables import (
    by_rate,
    by_subset,
    latex,
    markdown,
    metric_columns,
    plain,
    resampled_errors,
    standing,
    summary,
    utterance_errors,
    write_tables,
)
from lnln.models import TITLES
from lnln.paper import grid as grids
from lnln.paper.grid import Cell, cells_of, run_grid
from lnln.training.checkpoint import CheckpointError, write_tensors
from lnln.training.presets import preset_for
from lnln.training.scoring.metrics import METRICS
from lnln.training.settings import with_train

METHODS = ("almt", "lnln")
SMALL = Source("simulated:mini", train_size=60, seed=1)


def small_cells(folder: Path, **options: Any) -> list[Cell]:
    """Two methods with two seeds, trained for an epoch."""
    presets = {m: with_train(preset_for(m, "mini"), epochs=1) for m in METHODS}
    return cells_of(presets, SMALL, folder, [1, 2], **{"mask_seeds": (0, 1)} | options)


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    folder = tmp_path_factory.mktemp("grid")
    return folder, run_grid(small_cells(folder, subsets=True), progress=False)


def test_every_cell_is_there_with_its_seed(grid: tuple[Path, list[Path]]) -> None:
    folder, paths = grid
    assert sorted(p.name for p in paths) == ["almt-1", "almt-2", "lnln-1", "lnln-2"]
    text = write_tables(paths, folder, "mosi")
    assert "LNLN" in text and "ALMT" in text and "Bayes limit" in text
    head, _, *lines = text.splitlines()
    assert head.endswith(" corr | MAE less that of LNLN [95 %] | rank [95 %] | first |")
    gaps = {line.split(" | ")[0][2:]: line.split(" | ")[-3] for line in lines}
    assert [name for name, gap in gaps.items() if "[" in gap] == ["ALMT"]
    for name in ("overall", "rates", "modalities"):
        for suffix in (".csv", ".md", ".tex"):
            assert (folder / (name + suffix)).stat().st_size > 100
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    with open(folder / "scores.csv") as file:
        rows = list(csv.DictReader(file))
    limits = [r for r in rows if r["method"] == "Bayes limit" and r["metric"] == "mae"]
    assert len(limits) == 16, "ten rates, six more subsets; once for all cells"
    lines = (folder / "rates.md").read_text().splitlines()
    assert len(lines) == 2 + 10 * 4  # LNLN, ALMT, limit and floor
    assert lines[2].startswith("| r = 0.0 | ") and lines[-1].startswith("| r = 0.9 |")
    lines = (folder / "modalities.md").read_text().splitlines()
    assert len(lines) == 2 + 7 * 4
    assert any(line.startswith("| audio + vision | LNLN |") for line in lines)
    assert {r["seed"] for r in rows if r["method"] == "ALMT"} == {"1", "2"}


def test_both_answers_of_a_method_stand_side_by_side(tmp_path: Path) -> None:
    command = "compare --methods almt --answers point distribution --seeds 1 --quiet"
    options = "--mask-seeds 0 --epochs 1 --train-size 60 --device cpu --jobs 1"
    out = ["--out", str(tmp_path)]
    assert main([*command.split(), *options.split(), *out]) == 0
    names = sorted(p.parent.name for p in tmp_path.glob("*/record.json"))
    assert names == ["almt-1", "almt.distribution-1"]
    scores = lnln.read_csv(tmp_path / "scores.csv")
    told = scores[scores["metric"] == "divergence"]
    assert set(told["method"]) == {"ALMT (distribution)"} and len(told) == 10
    assert (told["value"] > 0).all()
    table = (tmp_path / "distributions.md").read_text()
    assert "ALMT (distribution)" in table and "Bayes limit" in table
    assert "| ALMT |" not in table


def test_what_is_finished_is_not_done_again(
    grid: tuple[Path, list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, paths = grid

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("evaluated again")

    monkeypatch.setattr(grids.ev, "evaluate", never)
    before = {p: (p / "model.safetensors").stat().st_mtime_ns for p in paths}
    run_grid(small_cells(folder, subsets=True), progress=False)
    after = {p: (p / "model.safetensors").stat().st_mtime_ns for p in paths}
    assert before == after


def test_other_corruptions_and_masks_are_scored_without_training(
    grid: tuple[Path, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, paths = grid
    before = {p: (p / "model.safetensors").stat().st_mtime_ns for p in paths}
    run_grid(small_cells(folder, corruption="words"), progress=False)
    after = {p: (p / "model.safetensors").stat().st_mtime_ns for p in paths}
    assert before == after
    write_tables(paths, tmp_path, "mosi", corruption="words")
    with open(tmp_path / "scores-words.csv") as file:
        rows = list(csv.DictReader(file))
    assert {r["corruption"] for r in rows} == {"words"}
    assert "Bayes limit, intact" in {r["method"] for r in rows}
    references = [r for r in rows if r["method"] == "Bayes limit, intact"]
    assert len(references) == len({(r["rate"], r["metric"]) for r in references})
    erased, wrong = (utterance_errors(paths, kind) for kind in ("random", "words"))
    assert (erased != wrong).any(axis=None)
    assert not (tmp_path / "scores.csv").exists()
    # Other mask seeds are other scores.
    assert all(cell.finished for cell in small_cells(folder))
    others = small_cells(folder, mask_seeds=(0, 1, 2))
    assert not any(cell.finished for cell in others)


def test_cell_with_other_settings_is_refused(grid: tuple[Path, list[Path]]) -> None:
    folder, _ = grid
    other = with_train(preset_for("almt", "mini"), epochs=3)
    with pytest.raises(CheckpointError, match="other settings"):
        run_grid(cells_of({"almt": other}, SMALL, folder, [1]), progress=False)


def test_table_by_rate_holds_the_means_of_its_rows(
    grid: tuple[Path, list[Path]],
) -> None:
    _, paths = grid
    scores = compare.scores_of(paths)
    for lines, name, rate in ((by_rate, "r = 0.3", 0.3), (by_subset, "audio", 0.0)):
        subset = "a" if lines is by_subset else "lav"
        used = (scores.method == "LNLN") & (scores.metric == "mae")
        values = scores[used & (scores.rate == rate) & (scores.available == subset)]
        assert len(values) == 4  # two training seeds, two mask seeds
        means = summary(scores, METRICS["mosi"], lines).set_index(
            ["setting", "method", "metric"]
        )
        want = pytest.approx(sum(values.value) / 4)
        assert means.loc[(name, "LNLN", "mae"), "mean"] == want


def test_other_data_than_the_grid_was_given_are_refused() -> None:
    wrong = Source("simulated:mini", train_size=60, seed=1, sha256="0" * 64)
    with pytest.raises(DataError, match="the same file"):
        open_source(wrong)


def test_a_cluster_survives_the_death_of_a_worker(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    presets = {m: with_train(preset_for(m, "mini"), epochs=4) for m in METHODS}
    alone, spread = tmp_path / "alone", tmp_path / "spread"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as on the workers: sums in the same order
    try:
        cells = cells_of(presets, SMALL, alone, [1, 2], mask_seeds=(0,))
        here = run_grid(cells, progress=False)
    finally:
        torch.set_num_threads(threads)
    killed = []

    def kill_one(cluster: Any) -> None:
        # As soon as a cell has finished an epoch, and is not yet done.
        while not killed:
            records = [load_record(p.parent) for p in spread.glob("*/record.json")]
            if not all(record["finished"] for record in records):
                worker = next(iter(cluster.workers.values()))
                os.kill(worker.process.process.pid, signal.SIGKILL)
                killed.append(worker)
            time.sleep(0.02)

    options = {"threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(n_workers=2, **options) as cluster:
        killer = threading.Thread(target=kill_one, args=(cluster,), daemon=True)
        killer.start()
        cells = cells_of(presets, SMALL, spread, [1, 2], mask_seeds=(0,))
        address = cluster.scheduler_address
        there = run_grid(cells, progress=False, cluster=address)
    assert killed
    assert [p.name for p in there] == [p.name for p in here]
    for path in there:
        record = load_record(path)
        assert record["finished"]
        assert [entry["epoch"] for entry in record["history"]] == [1, 2, 3, 4]
    table = write_tables(there, spread, "mosi")
    assert table == write_tables(here, alone, "mosi")


@pytest.mark.parametrize(
    "how", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.nightly)]
)
def test_a_grid_that_is_stopped_leaves_no_process_behind(
    how: signal.Signals, tmp_path: Path
) -> None:
    pytest.importorskip("distributed")
    psutil = pytest.importorskip("psutil")  # comes with distributed
    command = [sys.executable, "-m", "lnln", "compare", "--methods", "lnln", "almt"]
    command += ["--seeds", "1", "--jobs", "2", "--train-size", "100"]
    command += ["--epochs", "999", "--quiet", "--out", str(tmp_path)]
    grid = subprocess.Popen(command)
    workers = []
    try:
        end = time.monotonic() + 300
        while len(list(tmp_path.glob("*/record.json"))) < 2:
            assert grid.poll() is None and time.monotonic() < end
            time.sleep(0.1)
        workers = psutil.Process(grid.pid).children(recursive=True)
        assert len(workers) >= 2
        grid.send_signal(how)
        assert grid.wait(60) == (130 if how == signal.SIGTERM else -how)
        # Killed, it can tell them nothing: they end after a minute without work.
        _, left = psutil.wait_procs(workers, 20 if how == signal.SIGTERM else 120)
        assert not left
    finally:
        for process in (grid, *workers):
            with suppress(psutil.NoSuchProcess):
                process.kill()


def test_runs_at_a_time_give_what_runs_one_after_the_other_give(
    tmp_path: Path,
) -> None:
    pytest.importorskip("distributed")
    presets = {"almt": with_train(preset_for("almt", "mini"), epochs=1)}
    cells = cells_of(presets, SMALL, tmp_path / "two", [1, 2], mask_seeds=(0,))
    together = run_grid(cells, progress=False, jobs=2)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        cells = cells_of(presets, SMALL, tmp_path / "one", [1, 2], mask_seeds=(0,))
        alone = run_grid(cells, progress=False)
    finally:
        torch.set_num_threads(threads)
    for one, two in zip(alone, together, strict=True):
        assert (one / "robustness.csv").read_text() == (
            two / "robustness.csv"
        ).read_text()


def test_a_cluster_that_asks_for_certificates_is_served(
    tmp_path: Path,
) -> None:
    distributed = pytest.importorskip("distributed")
    dask = pytest.importorskip("dask")
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "cert.pem")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=lnln"
    subprocess.run(
        [*command.split(), "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )
    tls = {"distributed.comm.tls.ca-file": certificate}
    for part in ("scheduler", "worker", "client"):
        tls[f"distributed.comm.tls.{part}.key"] = key
        tls[f"distributed.comm.tls.{part}.cert"] = certificate
    presets = {"almt": with_train(preset_for("almt", "mini"), epochs=1)}
    cells = cells_of(presets, SMALL, tmp_path / "runs", [1], mask_seeds=(0,))
    options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}
    with dask.config.set(tls):
        security = distributed.Security()
        with distributed.LocalCluster(
            protocol="tls://", security=security, **options
        ) as cluster:
            address = cluster.scheduler_address
            assert address.startswith("tls://")
            (path,) = run_grid(cells, progress=False, cluster=address)
    assert load_record(path)["finished"]


def scores_by_hand(*known: tuple[int, int, float, float]) -> pd.DataFrame:
    """Errors of a method: training seed, mask seed, rate and value."""
    scores = pd.DataFrame(known, columns=["seed", "mask_seed", "rate", "value"])
    return scores.assign(method="A", available="lav", metric="mae")


def test_spreads_of_seeds_and_masks_are_kept_apart() -> None:
    scores = scores_by_hand(
        *((1, 0, r, 1.0 + r) for r in (0.0, 0.5)),
        *((1, 1, r, 1.2 + r) for r in (0.0, 0.5)),
        *((2, 0, r, 2.0 + r) for r in (0.0, 0.5)),
        *((2, 1, r, 2.2 + r) for r in (0.0, 0.5)),
        (1, 0, 1.0, 99.0),  # not one of the ten rates
    )
    means = summary(scores, METRICS["mosi"])
    (line,) = means.to_dict("records")
    assert line["mean"] == pytest.approx(1.85)
    assert line["std_training"] == pytest.approx(1 / math.sqrt(2))
    assert line["std_masks"] == pytest.approx(0.2 / math.sqrt(2))
    (alone,) = summary(scores[:1], METRICS["mosi"]).to_dict("records")
    assert math.isnan(alone["std_training"]) and math.isnan(alone["std_masks"])
    table = metric_columns(means, METRICS["mosi"])
    assert "| 1.850 ± 0.707 |" in markdown(table)
    assert r"& 1.850 $\pm$ 0.707 &" in latex(table)
    assert "| 1.850 ± 0.141 |" in markdown(
        metric_columns(means, METRICS["mosi"], "std_masks")
    )


def test_one_table_is_printed_in_three_ways() -> None:
    table = pd.DataFrame({"acc_2": ["50 %", "1 ± 2"], "long": [0.5, 1.0]}, ["a", "bc"])
    table = table.rename_axis("of")
    assert markdown(table).splitlines() == [
        "| of | acc_2 | long |",
        "| --- | --- | --- |",
        "| a | 50 % | 0.5 |",
        "| bc | 1 ± 2 | 1.0 |",
    ]
    assert latex(table).splitlines() == [
        r"\begin{tabular}{lrr}",
        r"of & acc\_2 & long \\",
        r"\hline",
        r"a & 50 \% & 0.5 \\",
        r"bc & 1 $\pm$ 2 & 1.0 \\",
        r"\end{tabular}",
    ]
    assert plain(table).splitlines() == [
        "of  acc_2   long",
        "a    50 %  0.500",
        "bc  1 ± 2  1.000",
    ]


def cell(path: Path, error: torch.Tensor) -> Path:
    path.mkdir()
    labels = torch.zeros(error.shape[-1])
    tensors = {"sentiment": error, "labels": labels}
    write_tensors(path / "predictions.safetensors", tensors, {})
    return path


def test_what_methods_have_in_common_drops_out_of_their_difference(
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    hard = 3 * torch.rand(1, 200)  # what both find hard
    lucky = torch.tensor([-0.2, 0.0, 0.1, 0.3])  # seeds that both are helped by
    cells: dict[str, list[Path]] = {"A": [], "B": [], "C": []}
    for seed, luck in enumerate(lucky):
        shuffled = hard[:, torch.randperm(200)]
        for title, error in (("A", hard), ("B", hard + 0.05), ("C", shuffled + 0.05)):
            path = tmp_path / f"{title}-{seed}"
            cells[title].append(cell(path, error + 1 + luck))
    errors = {title: utterance_errors(paths) for title, paths in cells.items()}
    means, draws = resampled_errors(errors)
    assert means["A"] == pytest.approx(float(1 + lucky.mean() + hard.mean()), abs=1e-5)
    assert draws.shape == (2000, 3) and draws["A"].std() > 0.05
    assert (draws["B"] - draws["A"]).to_numpy() == pytest.approx(0.05, abs=1e-5)
    table = standing(means, draws, "A")
    assert table.loc["B", "MAE less that of A [95 %]"] == "+0.050 [+0.050, +0.050]"
    low, high = np.quantile(draws["C"] - draws["A"], [0.025, 0.975])
    assert low < 0 < high
    assert f"[{low:+.3f}, {high:+.3f}]" in table.loc["C", "MAE less that of A [95 %]"]
    # B is behind A in every draw, so it is never first.
    assert (
        table.loc["B", "first"] == "0%" and table.loc["A", "rank [95 %]"] == "1 [1, 2]"
    )
    first = float(table.loc["A", "first"].strip("%")) / 100
    assert first == pytest.approx((draws["A"] < draws["C"]).mean(), abs=0.01)
    # Seeds that only one of them has cannot be paired, and their luck stays.
    _, apart = resampled_errors({"A": errors["A"], "B": errors["B"].iloc[:3]})
    assert (apart["B"] - apart["A"]).std() > 0.05


def test_one_method_has_no_rank(tmp_path: Path, grid: tuple[Path, list[Path]]) -> None:
    paths = [path for path in grid[1] if path.name.startswith("almt")]
    assert "rank" not in write_tables(paths, tmp_path, "mosi")
    told = write_tables(grid[1], tmp_path, "mosi")
    assert "| first |" in told.splitlines()[0]


def test_missing_cell_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not finished"):
        compare.scores_of([tmp_path / "almt-1"])


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["compare", "--methods", "self_mm", "lnln", "--seeds", "1", "--epochs"]
    command += ["1", "--train-size", "50", "--mask-seeds", "0", "--quiet"]
    assert main([*command, "--out", str(tmp_path)]) == 0
    assert "Self-MM" in capsys.readouterr().out
    assert main(["compare", "--preset", "mosi", "--out", str(tmp_path)]) == 1
    assert "needs --data" in capsys.readouterr().err


def test_every_method_has_settings_for_every_data_set() -> None:
    for method in TITLES:
        for name in ("mini", "mosi", "mosei", "sims"):
            preset = preset_for(method, name)
            assert preset.model.method == method
            again = lnln.Preset.from_dict(preset.to_dict())
            assert again == preset
    with pytest.raises(ValueError, match="unknown"):
        preset_for("mult", "mini")
