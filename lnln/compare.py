"""Train and score several methods under one protocol; tables from the records alone.

A cell of the grid is a method and a training seed. Its folder holds the run, its scores
(`robustness.csv`) and its predictions (`predictions.safetensors`). A finished cell is
never done again; a killed one goes on where it was.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from lnln import evaluation as ev
from lnln.checkpoint import (
    CheckpointError,
    atomic_path,
    load_model,
    read_tensors,
    write_tensors,
)
from lnln.config import LNLNConfig, Preset
from lnln.data import Dataset
from lnln.methods import TITLES
from lnln.metrics import METRICS
from lnln.missing import TEST_RATES, fixed_rates, split_uniforms
from lnln.plot import robustness_figure, save_figure
from lnln.training import train, with_train

_BOOTSTRAP = 2000


def run_grid(
    presets: dict[str, Preset],
    dataset: Dataset,
    folder: Path,
    seeds: Sequence[int],
    *,
    mask_seeds: Sequence[int] = (0, 1, 2),
    subsets: bool = False,
    device: str = "auto",
    progress: bool = True,
) -> list[Path]:
    """Train and evaluate every method with every seed.

    Args:
        presets: {method: settings}; the seed in them is replaced.
        dataset: trained on, and scored on its test split.
        folder: of the grid; the cells are its sub-folders.
        seeds: training seeds.
        mask_seeds: corruptions a condition.
        subsets: also all subsets of modalities, as in Tables 11 to 14.
        device: "auto", "cpu" or "cuda".
        progress: show a bar with a forecast, and one for each training.

    Returns:
        The folders of the cells.

    Raises:
        CheckpointError: a cell holds a run with other settings or data.
    """
    cells = [(method, seed) for seed in seeds for method in presets]
    wanted = ev.conditions(TEST_RATES, subsets)
    paths = []
    for method, seed in tqdm(cells, desc="grid", unit="run", disable=not progress):
        path = folder / f"{method}-{seed}"
        paths.append(path)
        train(
            with_train(presets[method], seed=seed),
            dataset,
            path,
            resume=True,
            device=device,
            progress=progress,
        )
        if not (path / "robustness.csv").exists():
            _predict(path, dataset, mask_seeds)
            rows = ev.evaluate(
                path, dataset, wanted, mask_seeds=mask_seeds, progress=False
            )
            rows += ev.reference_rows(dataset, wanted, mask_seeds=mask_seeds)
            ev.write_csv(path / "robustness.csv", rows)
    return paths


def _predict(path: Path, dataset: Dataset, mask_seeds: Sequence[int]) -> None:
    batch = dataset.test.batch
    trained = load_model(path / "model.safetensors")
    usable = trained.preset.train.modalities
    corruptions = [
        (fixed_rates(len(batch), rate, usable), split_uniforms(batch, seed))
        for rate in TEST_RATES
        for seed in mask_seeds
    ]
    predicted = [p.sentiment for p in trained.sweep(batch, corruptions)]
    tensors = {"sentiment": torch.stack(predicted), "labels": batch.labels}
    write_tensors(path / "predictions.safetensors", tensors, {})


def rows_of(paths: Iterable[Path]) -> list[ev.Row]:
    """The scores of finished cells, as `robustness.csv` holds them."""
    rows: list[ev.Row] = []
    for path in paths:
        try:
            with open(path / "robustness.csv", newline="", encoding="utf-8") as file:
                rows += list(csv.DictReader(file))
        except FileNotFoundError:
            raise CheckpointError(f"{path}: not finished; run the grid again") from None
    return rows


def summary(rows: Sequence[ev.Row], scheme: str) -> list[dict[str, Any]]:
    """Per method and metric the mean over r = 0 to 0.9, and two kinds of spread.

    Args:
        rows: of several cells.
        scheme: "mosi" or "sims".

    Returns:
        Rows with "method", "metric", "mean", "std_training" (between training seeds,
        each averaged over masks) and "std_masks" (between mask seeds, each averaged
        over training seeds); NaN where there is one only.
    """
    values: dict[tuple[str, str], dict[tuple[str, str], list[float]]] = {}
    for row in rows:
        swept = float(row["rate"]) in TEST_RATES and row["available"] == "lav"
        if swept and row["metric"] in METRICS[scheme]:
            of_metric = values.setdefault((row["method"], row["metric"]), {})
            at = (str(row["seed"]), str(row["mask_seed"]))
            of_metric.setdefault(at, []).append(float(row["value"]))
    found = []
    for (method, metric), by_seeds in values.items():
        means = {at: fmean(v) for at, v in by_seeds.items()}
        spread = {}
        for name, axis in (("std_training", 0), ("std_masks", 1)):
            groups: dict[str, list[float]] = {}
            for at, value in means.items():
                groups.setdefault(at[axis], []).append(value)
            levels = [fmean(group) for group in groups.values()]
            spread[name] = stdev(levels) if len(levels) > 1 else math.nan
        mean = fmean(means.values())
        found.append({"method": method, "metric": metric, "mean": mean, **spread})
    return found


def difference_to(
    reference: Sequence[Path], others: Sequence[Path], seed: int = 0
) -> tuple[float, float, float]:
    """How much larger the error of one method is than that of another.

    The mean absolute error over rates, mask seeds and training seeds, and a bootstrap
    over the utterances of the test split, the same for both.

    Args:
        reference, others: finished cells of two methods on the same data.
        seed: of the bootstrap.

    Returns:
        The difference (positive: the reference is better) and the ends of its 95 %
        interval.

    Raises:
        CheckpointError: predictions are missing.
    """
    a, b = (_errors(paths) for paths in (reference, others))
    gap = b - a
    draws = np.random.default_rng(seed).integers(0, len(gap), (_BOOTSTRAP, len(gap)))
    low, high = np.quantile(gap[draws].mean(axis=1), (0.025, 0.975))
    return float(gap.mean()), float(low), float(high)


def _errors(paths: Sequence[Path]) -> np.ndarray[Any, Any]:
    """(N,) mean absolute error of each test utterance."""
    found = []
    for path in paths:
        tensors, _ = read_tensors(path / "predictions.safetensors")
        error = (tensors["sentiment"] - tensors["labels"]).abs()
        found.append(error.mean(dim=0).numpy())
    errors: np.ndarray[Any, Any] = np.mean(found, axis=0)
    return errors


def text_table(
    found: Sequence[dict[str, Any]],
    gaps: dict[str, tuple[float, float, float]],
    scheme: str,
    form: str,
) -> str:
    """The summary as a table.

    Args:
        found: from `summary`.
        gaps: {title: from `difference_to`}.
        scheme: "mosi" or "sims".
        form: "markdown" or "latex".

    Returns:
        Text: means, with the spread between training seeds where there are several.
    """
    metrics = METRICS[scheme]
    cells = {(row["method"], row["metric"]): row for row in found}
    methods = list(dict.fromkeys(row["method"] for row in found))
    lines = [["method", *metrics, "MAE less LNLN's [95 %]"]]
    for method in methods:
        line = [method]
        for metric in metrics:
            row = cells.get((method, metric))
            line.append("" if row is None else _cell(row, form))
        gap = gaps.get(method)
        line.append(
            "" if gap is None else f"{gap[0]:+.3f} [{gap[1]:+.3f}, {gap[2]:+.3f}]"
        )
        lines.append(line)
    if form == "latex":
        body = [" & ".join(line).replace("_", r"\_") + r" \\" for line in lines]
        head = r"\begin{tabular}{l" + "r" * (len(metrics) + 1) + "}"
        body = [line.replace("%", r"\%") for line in body]
        return "\n".join([head, body[0], r"\hline", *body[1:], r"\end{tabular}"]) + "\n"
    rule = ["---"] * len(lines[0])
    return "\n".join("| " + " | ".join(x) + " |" for x in (lines[0], rule, *lines[1:]))


def _cell(row: dict[str, Any], form: str) -> str:
    sign = r"$\pm$" if form == "latex" else "±"
    spread = row["std_training"]
    return f"{row['mean']:.3f}" + (
        "" if math.isnan(spread) else f" {sign} {spread:.3f}"
    )


def write_tables(paths: Sequence[Path], folder: Path, scheme: str) -> str:
    """Write all tables and the curves of finished cells.

    Args:
        paths: the cells.
        folder: gets `scores.csv` (every score), `overall.csv`, `overall.md`,
            `overall.tex` and `curves.png`.
        scheme: "mosi" or "sims".

    Returns:
        The Markdown table.
    """
    rows = rows_of(paths)
    # Each cell repeats the references; one copy is enough.
    own = [r for r in rows if r["seed"]]
    references = {tuple(r.items()): r for r in rows if not r["seed"]}
    rows = [*own, *references.values()]
    found = summary(rows, scheme)
    order = {row["method"]: row["mean"] for row in found if row["metric"] == "mae"}
    found.sort(key=lambda row: order.get(row["method"], 0.0), reverse=True)
    cells: dict[str, list[Path]] = {}
    for path in paths:
        cells.setdefault(TITLES[path.name.rsplit("-", 1)[0]], []).append(path)
    ours = cells.get(TITLES[LNLNConfig.method], [])
    gaps = {
        title: difference_to(ours, theirs)
        for title, theirs in cells.items()
        if ours and theirs is not ours
    }
    ev.write_csv(folder / "scores.csv", rows)
    with atomic_path(folder / "overall.csv") as draft:
        with open(draft, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(found[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(found)
    tables = {
        form: text_table(found, gaps, scheme, form) for form in ("markdown", "latex")
    }
    for form, name in (("markdown", "overall.md"), ("latex", "overall.tex")):
        with atomic_path(folder / name) as draft:
            draft.write_text(tables[form] + "\n", encoding="utf-8")
    metrics = ("mae", "acc2" if scheme == "sims" else "acc2_neg_pos")
    save_figure(robustness_figure(rows, metrics), folder / "curves.png")
    return tables["markdown"]


def adapted(preset: Preset, **changes: Any) -> Preset:
    """A preset with another encoder or other training settings.

    Args:
        preset: of any method.
        changes: "encoder" (an `EncoderConfig`), or fields of `TrainConfig`.
    """
    encoder = changes.pop("encoder", None)
    if encoder is not None:
        preset = replace(preset, model=replace(preset.model, encoder=encoder))
    return with_train(preset, **changes)
