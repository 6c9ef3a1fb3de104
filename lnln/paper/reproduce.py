"""Every table and figure of the paper: what it shows, and how it is repeated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lnln.data.batch import Dataset
from lnln.data.files import data_dir
from lnln.evaluation.tables import (
    markdown,
    metric_columns,
    scores_of,
    summary,
    write_tables,
)
from lnln.missing.corruption import file_under
from lnln.models import TITLES
from lnln.paper.ablation import FULL, ablations, folder_name
from lnln.paper.grid import Cell
from lnln.paper.printed import printed
from lnln.training.presets import PRESETS, preset_for
from lnln.training.run import disk_of, size
from lnln.training.scoring.metrics import METRICS
from lnln.training.settings import Preset, with_settings

#: The methods of Table 8.
STABILITY = ("misa", "self_mm", "cenet", "tfr_net", "lnln")
#: What a GPU is taken to do: FLOP a second; seconds to start an operation.
SUSTAINED, START = 10e12, 10e-6


@dataclass(frozen=True)
class Exhibit:
    """A table or figure of the paper.

    Attributes:
        shows: what, in a few words.
        chapter: of the book, where it is explained.
        table: which file of the grid holds it: "overall", "rates", "modalities",
            "spread" or "curves.png".
        datasets: which of the data sets the paper shows.
        kind: "settings" (compared without training), "methods" (trained and scored by
            the grid), "ablation" (LNLN with changed settings, likewise), "chapter"
            (drawn by a chapter from one run) or "drawing" (nothing is computed).
    """

    shows: str
    chapter: str
    table: str = ""
    datasets: tuple[str, ...] = ("MOSI",)
    kind: str = "methods"

    @property
    def subsets(self) -> bool:
        """Whether all subsets of modalities are scored."""
        return self.table == "modalities"


_ENGLISH, _CHINESE, _BOTH = ("MOSI", "MOSEI"), ("SIMS",), ("MOSI", "SIMS")
_ALL = (*_ENGLISH, *_CHINESE)
_SEVEN, _ABLATION = "26_seven_other_methods", "28_ablations"
_SUBSETS, _MATRICES = "17_whole_modalities", "16_confusion_matrices"
EXHIBITS = {
    "table1": Exhibit("hyperparameters", "13_training", "", _ALL, "settings"),
    "table2": Exhibit("eight methods, mean over r", _SEVEN, "overall", _ENGLISH),
    "table3": Exhibit("eight methods, mean over r", _SEVEN, "overall", _CHINESE),
    "table4": Exhibit("without components", _ABLATION, "overall", _BOTH, "ablation"),
    "table5": Exhibit("without loss terms", _ABLATION, "overall", _BOTH, "ablation"),
    "table6": Exhibit("without modalities", _ABLATION, "overall", kind="ablation"),
    "table7": Exhibit("weights of the losses", _ABLATION, "overall", _BOTH, "ablation"),
    "table8": Exhibit("standard deviations", _ABLATION, "spread"),
    "table9": Exhibit("by missing rate", _SEVEN, "rates", _ENGLISH),
    "table10": Exhibit("by missing rate", _SEVEN, "rates", _CHINESE),
    "table11": Exhibit("modalities missing, mean", _SUBSETS, "modalities", _ENGLISH),
    "table12": Exhibit("modalities missing, mean", _SUBSETS, "modalities", _CHINESE),
    "table13": Exhibit("modalities missing, each", _SUBSETS, "modalities", _ENGLISH),
    "table14": Exhibit("modalities missing, each", _SUBSETS, "modalities", _CHINESE),
    "figure1": Exhibit("the pipeline", "intro", "", (), "drawing"),
    "figure2": Exhibit("robustness curves", "14_robustness_curves", "curves.png", _ALL),
    "figure3": Exhibit("case study", "18_case_study", kind="chapter"),
    "figure4": Exhibit("shares of the labels", "02_the_data", "", _ALL, "chapter"),
    "figure5": Exhibit("confusion matrices", _MATRICES, kind="chapter"),
    "figure6": Exhibit("confusion matrices", _MATRICES, "", ("MOSEI",), "chapter"),
    "figure7": Exhibit("confusion matrices", _MATRICES, "", ("SIMS",), "chapter"),
    "figure8": Exhibit(
        "language before and after correction", "15_umap", kind="chapter"
    ),
}


def number(name: str) -> int:
    """The number of "table4"."""
    return int(name.removeprefix("table").removeprefix("figure"))


def presets_of(
    name: str,
    preset: str,
    dataset: str,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> tuple[dict[str, Preset], dict[str, str]]:
    """The settings that an exhibit trains with.

    Args:
        name: a key of `EXHIBITS` of kind "methods", "ablation" or "chapter".
        preset: "mini", "mosi", "mosei" or "sims".
        dataset: as the paper names it; decides the weights of Table 7.
        settings: {method: changes of its preset, see `with_settings`}.

    Returns:
        {name of the runs: settings} and {name of the runs: title}.
    """
    exhibit = EXHIBITS[name]
    if exhibit.kind == "ablation":
        base = with_settings(PRESETS[preset], (settings or {}).get("lnln", {}))
        changed = ablations(number(name), base, dataset)
        titles = {folder_name(p, base): title for title, p in changed.items()}
        return {folder: changed[title] for folder, title in titles.items()}, titles
    # The methods of the paper, which knows no later ones.
    compared = set(printed(2, "MOSI")["method"])
    methods = [m for m, title in TITLES.items() if title in compared]
    if exhibit.kind == "chapter":
        methods = ["lnln"]
    elif exhibit.table == "spread":
        methods = list(STABILITY)
    presets = {
        m: with_settings(preset_for(m, preset), (settings or {}).get(m, {}))
        for m in methods
    }
    return presets, dict(TITLES)


def plan(cells: list[Cell], dataset: Dataset) -> list[str]:
    """What a grid would do: one line per run, and the sum.

    Args:
        cells: from `grid.cells_of`.
        dataset: what they are trained on.
    """
    lines = []
    for cell in cells:
        state = "finished" if cell.finished else "to do"
        epochs = f"at most {cell.preset.train.epochs} epochs"
        lines.append(f"{cell.folder.name:42s} {epochs:>20s}  {state}")
    left = sum(not cell.finished for cell in cells)
    disks = [disk_of(cell.preset.fit_to(dataset), dataset.scheme) for cell in cells]
    most = sum(d.finished for d in disks) + max(d.training - d.finished for d in disks)
    count = len(dataset.train.ids)
    lines.append(
        f"{left} of {len(cells)} runs to do, on {count} training utterances of "
        f"{dataset.source}"
    )
    lines.append(f"up to {size(most)} on disk, one run at a time")
    return lines


def expected_hours(presets: Iterable[Preset], name: str) -> float:
    """How long runs with the paper's settings take on one GPU: estimated, not measured.

    The longer of two times, from counts (`data/benchmarks/cost.csv`) and what a GPU is
    taken to do: arithmetic at `SUSTAINED`, and starting the operations at `START`.

    Args:
        presets: from `presets_of`, a run each.
        name: "mosi", "mosei" or "sims".
    """
    counts = pd.read_csv(data_dir() / "benchmarks" / "cost.csv")
    counts = counts[counts["data"] == name].set_index("method")
    counts = counts.loc[[preset.model.method for preset in presets]]
    arithmetic = counts["petaflop"] * 1e15 / SUSTAINED
    starting = counts["million_operations"] * 1e6 * START
    return float(np.maximum(arithmetic, starting).sum()) / 3600


def compare_settings(dataset: str) -> str:
    """Table 1 beside the presets, as Markdown."""
    preset = PRESETS[dataset.lower()]
    train = preset.train
    ours: dict[str, Any] = {
        "vector_length_T": preset.lnln.tokens,
        "vector_dimension_d": preset.lnln.width,
        "batch_size": train.batch_size,
        "initial_learning_rate": f"{train.learning_rate:g}",
        "optimizer": "AdamW",
        "epochs": train.epochs,
        "warm_up": f"{train.warmup:.0%} of the steps",
        "cosine_annealing": "yes" if train.schedule == "steps" else train.schedule,
        "early_stop": f"after {train.patience} epochs without improvement",
        "seed_1": train.seed,
        "seed_2": "--seeds",
        "seed_3": "--seeds",
        **{f"loss_weight_{term}": weight for term, weight in vars(preset.loss).items()},
    }
    cells = printed(1, dataset)
    names = cells["metric"].rename("setting")
    table = pd.DataFrame({"paper": cells["value"], "preset": names.map(ours)})
    return markdown(table.set_index(names))


def write_exhibit(
    name: str,
    paths: list[Path],
    folder: Path,
    scheme: str,
    titles: dict[str, str],
    corruption: str = "random",
) -> str:
    """The tables of a finished grid; returns the one that the exhibit is about.

    Args:
        name: a key of `EXHIBITS`.
        paths: the cells.
        folder: gets the files.
        scheme: "mosi" or "sims".
        titles: from `presets_of`.
        corruption: under which the cells were scored.
    """
    exhibit = EXHIBITS[name]
    reference = FULL if exhibit.kind == "ablation" else TITLES["lnln"]
    if reference not in titles.values():
        # Table 7 calls the full model by its weights.
        reference = next(iter(titles.values()))
    text = write_tables(paths, folder, scheme, titles, reference, corruption)
    if exhibit.table == "spread":
        # Table 8 done apart for both kinds of chance.
        means = summary(scores_of(paths, titles, corruption), METRICS[scheme])
        masks = markdown(metric_columns(means, METRICS[scheme], "std_masks"))
        text = (
            f"± between training seeds:\n\n{text}\n\n± between mask seeds:\n\n{masks}"
        )
        folder.joinpath(file_under(corruption, "spread.md")).write_text(
            text + "\n", encoding="utf-8"
        )
    elif exhibit.table == "curves.png":
        text = f"drawn to {folder / file_under(corruption, exhibit.table)}"
    elif exhibit.table != "overall":
        text = (folder / file_under(corruption, f"{exhibit.table}.md")).read_text(
            "utf-8"
        )
        text = text.rstrip()
    return text
