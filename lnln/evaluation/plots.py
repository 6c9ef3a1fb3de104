"""Figures of the commands and the book, in colours that all readers tell apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from lnln.data.files import atomic_path
from lnln.evaluation.sweep import BAYES, BOUND, FLOOR, LINEAR
from lnln.missing.corruption import CORRUPTIONS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The Okabe-Ito palette; lines differ in style and marker too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_REFERENCES: dict[str, dict[str, Any]] = {
    BAYES: {"color": "black", "linestyle": "--"},
    BOUND: {"color": "black", "linestyle": (0, (1, 3))},
    FLOOR: {"color": "grey", "linestyle": ":"},
    LINEAR: {"color": "#E69F00", "linestyle": "-.", "marker": "x"},
}
_MARKERS = "os^Dv"
#: Metrics as they stand in tables and at axes.
METRIC_TITLES = {
    "mae": "MAE",
    "corr": "Pearson correlation",
    "acc7": "Acc-7",
    "acc5": "Acc-5",
    "acc3": "Acc-3",
    "acc2": "Acc-2",
    "acc2_neg_pos": "Acc-2, negative / positive",
    "acc2_neg_nonneg": "Acc-2, negative / non-negative",
    "f1": "F1",
    "f1_neg_pos": "F1, negative / positive",
    "f1_neg_nonneg": "F1, negative / non-negative",
}


def robustness_figure(
    scores: pd.DataFrame,
    metrics: Sequence[str],
    title: str = "",
    available: str = "lav",
) -> Figure:
    """Metrics over the missing rate (the paper's Fig. 2), one line per method.

    Args:
        scores: in the tidy form of `lnln.evaluation.sweep`, under one corruption; bands
            span the seeds.
        metrics: one panel each.
        title: above the panels.
        available: the modalities that were available, as in the scores.

    Returns:
        A Matplotlib figure that belongs to no window.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(metrics), 3.6), layout="constrained")
    panels = figure.subplots(1, len(metrics), squeeze=False)[0]
    severity = CORRUPTIONS[scores["corruption"].iloc[0]].severity
    for axes, metric in zip(panels, metrics, strict=True):
        used = (scores["metric"] == metric) & (scores["available"] == available)
        colours, markers = cycle(COLOURS), cycle(_MARKERS)
        for method, part in scores[used].groupby("method", sort=False):
            style = _REFERENCES.get(method)
            if style is None:
                style = {"color": next(colours), "marker": next(markers)}
            of_rate = part.groupby("rate")["value"]
            mean, low, high = of_rate.mean(), of_rate.min(), of_rate.max()
            axes.plot(mean, label=method, **style)
            axes.fill_between(
                mean.index, low, high, color=style["color"], alpha=0.2, linewidth=0
            )
        told = " (lower is better)" if metric == "mae" else ""
        axes.set(xlabel=severity, ylabel=METRIC_TITLES.get(metric, metric) + told)
        axes.grid(alpha=0.3)
    panels[0].legend(fontsize=8)
    if title:
        figure.suptitle(title, fontsize=11)
    return figure


def flow_figure(
    boxes: Mapping[str, tuple[float, float, str]],
    arrows: Sequence[tuple[str, str]],
    marked: Sequence[str] = (),
    size: tuple[float, float] = (8.0, 3.0),
) -> Figure:
    """Labelled boxes and arrows between them: how data flow through a method.

    Args:
        boxes: {name: (column, row, label)}; row 0 is the lowest.
        arrows: pairs of names, from and to.
        marked: names of the boxes that the text is about; they are filled.
        size: of the figure in inches.

    Returns:
        A Matplotlib figure that belongs to no window.

    Raises:
        KeyError: an arrow or a mark names no box.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    drawn = {}
    for name, (column, row, label) in boxes.items():
        drawn[name] = axes.annotate(
            label,
            (column, row),
            ha="center",
            va="center",
            fontsize=9,
            bbox={
                "boxstyle": "round,pad=0.5",
                "facecolor": "#FFE6A8" if name in marked else "white",
                "edgecolor": "#E69F00" if name in marked else "#555555",
            },
        )
    for start, end in arrows:
        axes.annotate(
            "",
            boxes[end][:2],
            boxes[start][:2],
            arrowprops={
                "arrowstyle": "-|>",
                "color": "#555555",
                "patchA": drawn[start].get_bbox_patch(),
                "patchB": drawn[end].get_bbox_patch(),
                "shrinkA": 2,
                "shrinkB": 2,
            },
        )
    if missing := set(marked) - set(boxes):
        raise KeyError(", ".join(sorted(missing)))
    columns, rows = zip(*(box[:2] for box in boxes.values()), strict=True)
    axes.set_xlim(min(columns) - 0.6, max(columns) + 0.6)
    axes.set_ylim(min(rows) - 0.6, max(rows) + 0.6)
    axes.axis("off")
    return figure


def save_figure(figure: Figure, path: Path | str) -> None:
    """Write a figure as PNG, atomically."""
    with atomic_path(Path(path)) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
