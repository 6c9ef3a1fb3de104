"""The tables and the figure of a comparison, from the records of its runs alone."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from lnln.data.files import atomic_path
from lnln.evaluation import sweep as ev
from lnln.evaluation.plots import robustness_figure, save_figure
from lnln.missing.corruption import file_under
from lnln.missing.erasing import MODALITY_SUBSETS, TEST_RATES
from lnln.models import TITLES
from lnln.models.lnln import LNLNConfig
from lnln.training.checkpoint import CheckpointError, read_tensors
from lnln.training.metrics import METRICS
from lnln.training.settings import Preset, with_train

_BOOTSTRAP = 2000

#: Says which line of a table a score belongs to; None for no line of it.
Setting = Callable[[ev.Row], str | None]
#: Title and ends of a confidence interval of a difference in error.
Gap = tuple[float, float, float]


def title_of(path: Path, titles: Mapping[str, str]) -> str:
    """The title of a cell, whose folder is named after a method and a seed."""
    return titles[path.name.rsplit("-", 1)[0]]


def rows_of(
    paths: Iterable[Path],
    titles: Mapping[str, str] = TITLES,
    corruption: str = "random",
) -> list[ev.Row]:
    """The scores of finished cells; what is repeated in each (the references) once.

    Args:
        paths: the cells.
        titles: {name of a cell without its seed: what its rows are called}.
        corruption: under which they were scored.

    Raises:
        CheckpointError: a cell is not finished.
    """
    rows: dict[tuple[Any, ...], ev.Row] = {}
    for path in paths:
        try:
            found = ev.read_csv(path / file_under(corruption, "robustness.csv"))
        except FileNotFoundError:
            raise CheckpointError(f"{path}: not finished; run the grid again") from None
        own = "".join(ev.load_record(path)["preset"]["train"]["modalities"])
        for row in found:
            if row["method"] not in ev.REFERENCES:
                row["method"] = title_of(path, titles)
                # All that a model was trained with (Table 6) is all there is for it.
                row["available"] = {own: "lav"}.get(row["available"], row["available"])
            rows[tuple(row.values())] = row
    return list(rows.values())


def swept(row: ev.Row) -> str | None:
    """All ten rates together, as in Tables 2 and 3 of the paper."""
    inside = row["available"] == "lav" and float(row["rate"]) in TEST_RATES
    return "mean of r = 0 to 0.9" if inside else None


def at_rate(row: ev.Row) -> str | None:
    """Each rate by itself, as in Tables 9 and 10."""
    return None if swept(row) is None else f"r = {float(row['rate']):.1f}"


def available(row: ev.Row) -> str | None:
    """Each subset of complete modalities, as in Tables 11 to 14."""
    names = {"l": "language", "a": "audio", "v": "vision"}
    if float(row["rate"]) != 0.0 or tuple(row["available"]) not in MODALITY_SUBSETS:
        return None
    return " + ".join(names[m] for m in row["available"])


def summary(
    rows: Sequence[ev.Row], scheme: str, setting: Setting = swept
) -> list[dict[str, Any]]:
    """Per setting, method and metric the mean, and two kinds of spread.

    Args:
        rows: of several cells.
        scheme: "mosi" or "sims".
        setting: `swept`, `at_rate` or `available`.

    Returns:
        Rows with "setting", "method", "metric", "mean", "std_training" (between
        training seeds, each averaged over masks) and "std_masks" (between mask seeds,
        each averaged over training seeds); NaN where there is one only.
    """
    values: dict[tuple[str, str, str], dict[tuple[str, str], list[float]]] = {}
    for row in rows:
        place = setting(row)
        if place is not None and row["metric"] in METRICS[scheme]:
            of_metric = values.setdefault((place, row["method"], row["metric"]), {})
            at = (str(row["seed"]), str(row["mask_seed"]))
            of_metric.setdefault(at, []).append(float(row["value"]))
    found = []
    for (place, method, metric), by_seeds in values.items():
        means = {at: fmean(v) for at, v in by_seeds.items()}
        spread = {}
        for name, axis in (("std_training", 0), ("std_masks", 1)):
            groups: dict[str, list[float]] = {}
            for at, value in means.items():
                groups.setdefault(at[axis], []).append(value)
            levels = [fmean(group) for group in groups.values()]
            spread[name] = stdev(levels) if len(levels) > 1 else math.nan
        at_all = {"setting": place, "method": method, "metric": metric}
        found.append({**at_all, "mean": fmean(means.values()), **spread})
    return found


def difference_to(
    reference: Sequence[Path],
    others: Sequence[Path],
    seed: int = 0,
    corruption: str = "random",
) -> Gap:
    """How much larger the error of one method is than that of another.

    The mean absolute error over rates, mask seeds and training seeds, and a bootstrap
    over the utterances of the test split, the same for both.

    Args:
        reference, others: finished cells of two methods on the same data.
        seed: of the bootstrap.
        corruption: under which they were scored.

    Returns:
        The difference (positive: the reference is better) and the ends of its 95 %
        interval.

    Raises:
        CheckpointError: predictions are missing.
    """
    a, b = (_errors(paths, corruption) for paths in (reference, others))
    gap = b - a
    draws = np.random.default_rng(seed).integers(0, len(gap), (_BOOTSTRAP, len(gap)))
    low, high = np.quantile(gap[draws].mean(axis=1), (0.025, 0.975))
    return float(gap.mean()), float(low), float(high)


def _errors(paths: Sequence[Path], corruption: str) -> np.ndarray[Any, Any]:
    """(N,) mean absolute error of each test utterance."""
    found = []
    name = file_under(corruption, "predictions.safetensors")
    for path in paths:
        tensors, _ = read_tensors(path / name)
        error = (tensors["sentiment"] - tensors["labels"]).abs()
        found.append(error.mean(dim=0).numpy())
    errors: np.ndarray[Any, Any] = np.mean(found, axis=0)
    return errors


def text_table(
    found: Sequence[dict[str, Any]],
    gaps: dict[str, Gap],
    scheme: str,
    form: str,
    reference: str = "",
) -> str:
    """A summary as a table.

    Args:
        found: from `summary`.
        gaps: {title: from `difference_to`}; empty for none.
        scheme: "mosi" or "sims".
        form: "markdown" or "latex".
        reference: the title whose error the gaps are differences to.

    Returns:
        Text: means, with the spread between training seeds where there are several.
    """
    metrics = METRICS[scheme]
    cells = {(r["setting"], r["method"], r["metric"]): r for r in found}
    places = list(dict.fromkeys((r["setting"], r["method"]) for r in found))
    several = len({place for place, _ in places}) > 1
    head = (["setting"] if several else []) + ["method", *metrics]
    lines = [head + ([f"MAE less that of {reference} [95 %]"] if gaps else [])]
    for place, method in places:
        line = ([place] if several else []) + [method]
        for metric in metrics:
            row = cells.get((place, method, metric))
            line.append("" if row is None else _cell(row, form))
        if gaps:
            gap = gaps.get(method)
            line.append(
                "" if gap is None else "{:+.3f} [{:+.3f}, {:+.3f}]".format(*gap)
            )
        lines.append(line)
    if form == "latex":
        body = [" & ".join(line).replace("_", r"\_") + r" \\" for line in lines]
        words = len(head) - len(metrics)
        columns = "l" * words + "r" * (len(lines[0]) - words)
        body = [line.replace("%", r"\%") for line in body]
        start = rf"\begin{{tabular}}{{{columns}}}"
        return "\n".join([start, body[0], r"\hline", *body[1:], r"\end{tabular}"])
    rule = ["---"] * len(lines[0])
    return "\n".join("| " + " | ".join(x) + " |" for x in (lines[0], rule, *lines[1:]))


def _cell(row: dict[str, Any], form: str) -> str:
    sign = r"$\pm$" if form == "latex" else "±"
    spread = row["std_training"]
    return f"{row['mean']:.3f}" + (
        "" if math.isnan(spread) else f" {sign} {spread:.3f}"
    )


def write_tables(
    paths: Sequence[Path],
    folder: Path,
    scheme: str,
    titles: Mapping[str, str] = TITLES,
    reference: str = TITLES[LNLNConfig.method],
    corruption: str = "random",
) -> str:
    """Write all tables and the curves of finished cells.

    Args:
        paths: the cells.
        folder: gets `scores.csv` (every score); `overall`, `rates` and, if the cells
            have them, `modalities`, each as .csv, .md and .tex; and `curves.png`. Under
            another corruption than the paper's the names end in it.
        scheme: "mosi" or "sims".
        titles: see `rows_of`.
        reference: the title whose error the others' are compared with.
        corruption: under which the cells were scored.

    Returns:
        The table over all rates as Markdown.
    """

    def file(name: str) -> Path:
        return folder / file_under(corruption, name)

    rows = rows_of(paths, titles, corruption)
    ev.write_csv(file("scores.csv"), rows)
    cells: dict[str, list[Path]] = {}
    for path in paths:
        cells.setdefault(title_of(path, titles), []).append(path)
    ours = cells.get(reference, [])
    gaps = {
        title: difference_to(ours, theirs, corruption=corruption)
        for title, theirs in cells.items()
        if ours and theirs is not ours
    }
    overall = summary(rows, scheme)
    mae = {row["method"]: -row["mean"] for row in overall if row["metric"] == "mae"}
    text = _write_table(file("overall"), overall, mae, gaps, scheme, reference)
    _write_table(file("rates"), summary(rows, scheme, at_rate), mae, {}, scheme)
    if any(row["available"] == "l" for row in rows):
        by_subset = summary(rows, scheme, available)
        _write_table(file("modalities"), by_subset, mae, {}, scheme)
    metrics = ("mae", "acc2" if scheme == "sims" else "acc2_neg_pos")
    save_figure(robustness_figure(rows, metrics), file("curves.png"))
    return text


def _write_table(
    path: Path,
    found: list[dict[str, Any]],
    order: dict[str, float],
    gaps: dict[str, Gap],
    scheme: str,
    reference: str = "",
) -> str:
    """Write .csv, .md and .tex, settings in their order; returns the Markdown."""
    settings = list(dict.fromkeys(row["setting"] for row in found))
    found = sorted(
        found, key=lambda r: (settings.index(r["setting"]), order.get(r["method"], 0.0))
    )
    with atomic_path(path.with_suffix(".csv")) as draft:
        with open(draft, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(found[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(found)
    markdown, latex = (
        text_table(found, gaps, scheme, form, reference)
        for form in ("markdown", "latex")
    )
    for text, suffix in ((markdown, ".md"), (latex, ".tex")):
        with atomic_path(path.with_suffix(suffix)) as draft:
            draft.write_text(text + "\n", encoding="utf-8")
    return markdown


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
