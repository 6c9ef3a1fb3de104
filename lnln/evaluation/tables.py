"""The tables and the figure of a comparison, from the records of its runs alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lnln.data.files import atomic_path
from lnln.evaluation import sweep as ev
from lnln.evaluation.plots import robustness_figure, save_figure
from lnln.missing.corruption import file_under
from lnln.missing.erasing import MODALITY_SUBSETS, TEST_RATES
from lnln.models import TITLES
from lnln.models.lnln import LNLNConfig
from lnln.training.checkpoint import CheckpointError, read_tensors
from lnln.training.scoring.distributions import DISTRIBUTION_SCORES
from lnln.training.scoring.metrics import METRICS

# Draws of the bootstrap.
_BOOTSTRAP = 2000
_ESCAPED = str.maketrans({"_": r"\_", "%": r"\%", "±": r"$\pm$"})

#: What metrics are called in print.
NAMES = {
    "mae": "MAE",
    "corr": "Corr",
    "acc7": "Acc-7",
    "acc5": "Acc-5",
    "acc3": "Acc-3",
    "acc2": "Acc-2",
    "acc2_neg_pos": "Acc-2, neg./pos.",
    "acc2_neg_nonneg": "Acc-2, neg./non-neg.",
    "f1": "F1",
    "f1_neg_pos": "F1, neg./pos.",
    "f1_neg_nonneg": "F1, neg./non-neg.",
}
#: Names the line of a table that each score belongs to; missing for no line of it.
Lines = Callable[[pd.DataFrame], pd.Series]


def plain(table: pd.DataFrame) -> str:
    """A table as text for a console; its index comes first, to the left."""
    cells = table.map(lambda x: f"{x:.3f}" if isinstance(x, float) else str(x))
    widths = [max(map(len, [name, *cells[name]])) + 1 for name in cells]
    cells = cells.rename_axis(index=None, columns=table.index.name)
    return str(cells.to_string(col_space=widths))


def markdown(table: pd.DataFrame) -> str:
    """A table as Markdown; its index comes first."""
    flat = table.reset_index()
    lines = [list(flat), ["---"] * flat.shape[1], *flat.to_numpy()]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def latex(table: pd.DataFrame) -> str:
    """A table as LaTeX; its index comes first, to the left."""
    flat = table.reset_index()
    head, *body = (
        " & ".join(map(str, line)).translate(_ESCAPED) + r" \\"
        for line in (list(flat), *flat.to_numpy())
    )
    columns = "l" * table.index.nlevels + "r" * table.shape[1]
    start = rf"\begin{{tabular}}{{{columns}}}"
    return "\n".join([start, head, r"\hline", *body, r"\end{tabular}"])


def title_of(path: Path, titles: Mapping[str, str]) -> str:
    """The title of a cell, whose folder is named after a method and a seed."""
    return titles[path.name.rsplit("-", 1)[0]]


def scores_of(
    paths: Iterable[Path],
    titles: Mapping[str, str] = TITLES,
    corruption: str = "random",
) -> pd.DataFrame:
    """The scores of finished cells; what is repeated in each (the references) once.

    Args:
        paths: the cells.
        titles: {name of a cell without its seed: what its scores are called}.
        corruption: under which they were scored.

    Raises:
        CheckpointError: a cell is not finished.
    """
    parts = []
    for path in paths:
        try:
            scores = ev.read_csv(path / file_under(corruption, "robustness.csv"))
        except FileNotFoundError:
            raise CheckpointError(f"{path}: not finished; run the grid again") from None
        trained_with = ev.load_record(path)["preset"]["train"]["modalities"]
        own = ~scores["method"].isin(ev.REFERENCES)
        scores.loc[own, "method"] = title_of(path, titles)
        # A model trained without a modality (Table 6) counts as having all of its own.
        everything = own & (scores["available"] == "".join(trained_with))
        scores.loc[everything, "available"] = "lav"
        parts.append(scores)
    return pd.concat(parts).drop_duplicates(ignore_index=True)


def over_rates(scores: pd.DataFrame) -> pd.Series:
    """One line for all ten rates, as in Tables 2 and 3 of the paper."""
    inside = (scores["available"] == "lav") & scores["rate"].isin(TEST_RATES)
    return inside.map({True: "mean of r = 0 to 0.9"})


def by_rate(scores: pd.DataFrame) -> pd.Series:
    """One line per rate, as in Tables 9 and 10."""
    return scores["rate"].map("r = {:.1f}".format).where(over_rates(scores).notna())


def by_subset(scores: pd.DataFrame) -> pd.Series:
    """One line per subset of complete modalities, as in Tables 11 to 14."""
    names = {"l": "language", "a": "audio", "v": "vision"}
    lines = {"".join(s): " + ".join(names[m] for m in s) for s in MODALITY_SUBSETS}
    return scores["available"].map(lines).where(scores["rate"] == 0.0)


def summary(
    scores: pd.DataFrame,
    metrics: Sequence[str],
    lines: Lines = over_rates,
) -> pd.DataFrame:
    """Per line of a table, method and metric the mean, and two kinds of spread.

    Args:
        scores: of several cells, in tidy form.
        metrics: which, such as `METRICS["mosi"]`.
        lines: `over_rates`, `by_rate` or `by_subset`.

    Returns:
        The columns "setting" (the line's name), "method", "metric", "mean",
        "std_training" (between training seeds, each averaged over masks) and
        "std_masks" (between mask seeds, each averaged over training seeds); NaN where
        there is one only.
    """
    named = scores.assign(setting=lines(scores))
    named = named[named["setting"].notna() & named["metric"].isin(metrics)]
    cell = ["setting", "method", "metric"]
    each = named.groupby([*cell, "seed", "mask_seed"], sort=False)["value"].mean()

    def spread(seeds: str) -> pd.Series:
        levels = each.groupby([*cell, seeds], sort=False).mean()
        return levels.groupby(cell, sort=False).std()

    columns = {
        "mean": each.groupby(cell, sort=False).mean(),
        "std_training": spread("seed"),
        "std_masks": spread("mask_seed"),
    }
    return pd.DataFrame(columns).reset_index()


def metric_columns(
    means: pd.DataFrame, metrics: Sequence[str], spread: str = "std_training"
) -> pd.DataFrame:
    """A summary as it is printed: the metrics side by side, as texts.

    Args:
        means: from `summary`.
        metrics: which, in the order of the columns.
        spread: "std_training" or "std_masks", told where there are several seeds.

    Returns:
        One column per metric; the index is the method, below a "setting" where there
        are several.
    """
    told = means[spread].map(" ± {:.3f}".format).where(means[spread].notna(), "")
    texts = means.assign(text=means["mean"].map("{:.3f}".format) + told)
    texts = texts.set_index(["setting", "method", "metric"])["text"]
    table = texts.unstack("metric", sort=False)
    table = table.reindex(columns=list(metrics), fill_value="").fillna("")
    return table if means["setting"].nunique() > 1 else table.droplevel("setting")


def rate_table(
    scores: pd.DataFrame, method: str, scheme: str, available: str = "lav"
) -> pd.DataFrame:
    """A method's metrics, one line per missing rate, and the mean of r = 0 to 0.9."""
    own = scores[scores["method"] == method]
    table = pd.DataFrame(
        {m: ev.mean_by_rate(own, m, available)[method] for m in METRICS[scheme]}
    )
    swept = table[table.index.isin(TEST_RATES)]
    table.index = table.index.map("{:.2f}".format).rename("r")
    if len(swept) == len(TEST_RATES):
        table.loc["mean"] = swept.mean()
    return table


def utterance_errors(paths: Sequence[Path], corruption: str = "random") -> pd.DataFrame:
    """(S, N) mean absolute error of each test utterance, a row a training seed.

    Args:
        paths: finished cells of one method, S training seeds.
        corruption: under which they were scored.

    Raises:
        CheckpointError: predictions are missing.
    """
    rows = {}
    name = file_under(corruption, "predictions.safetensors")
    for path in paths:
        tensors, _ = read_tensors(path / name)
        error = (tensors["sentiment"] - tensors["labels"]).abs()
        rows[path.name.rsplit("-", 1)[1]] = error.double().mean(dim=0).numpy()
    return pd.DataFrame(rows).T


def resampled_errors(
    errors: Mapping[str, pd.DataFrame], seed: int = 0
) -> tuple[pd.Series, pd.DataFrame]:
    """Errors of methods, and what they might have been.

    A bootstrap over training seeds and over utterances of the test split. All methods
    are given the same draw of both, so what they have in common drops out of their
    differences. With few seeds it makes intervals too short, and with one the luck of
    the training is not in them.

    Args:
        errors: {title: (S, N) from `utterance_errors`}, all of the same utterances.
        seed: of the bootstrap.

    Returns:
        Mean absolute errors by title; and the same for each of the draws, a row each.
    """
    tables = {title: error.to_numpy() for title, error in errors.items()}
    means = pd.Series({title: table.mean() for title, table in tables.items()})
    chance = np.random.default_rng(seed)
    utterances = _shares(chance, next(iter(tables.values())).shape[1])
    seeds = sorted({seed for error in errors.values() for seed in error.index})
    drawn = pd.DataFrame(_shares(chance, len(seeds)), columns=seeds)
    draws = {}
    for title, table in tables.items():
        weights = drawn[errors[title].index].to_numpy()
        if len(table) < len(seeds):
            # Not all have the same seeds, so they cannot be drawn together.
            weights = _shares(chance, len(table))
        draws[title] = (utterances @ table.T * weights).sum(axis=1)
    return means, pd.DataFrame(draws)


def standing(means: pd.Series, draws: pd.DataFrame, reference: str) -> pd.DataFrame:
    """How methods stand to each other, each with a 95 % interval.

    Args:
        means, draws: from `resampled_errors`.
        reference: the title that the others are compared with, if it is one of these.

    Returns:
        By title, as texts: how much larger the error is than the reference's; the rank
        of the error (1: the smallest); and the share of draws in which it is first.
    """
    ranks = draws.rank(axis=1)
    low, high = (ranks.quantile(q, interpolation="nearest") for q in (0.025, 0.975))
    table = pd.DataFrame(index=means.index)
    if reference in means:
        gaps = means - means[reference]
        moved = draws.sub(draws[reference], axis=0).quantile([0.025, 0.975])
        table[f"MAE less that of {reference} [95 %]"] = [
            ""
            if title == reference
            else "{:+.3f} [{:+.3f}, {:+.3f}]".format(gaps[title], *moved[title])
            for title in means.index
        ]
    table["rank [95 %]"] = [
        f"{rank:.0f} [{low[title]:.0f}, {high[title]:.0f}]"
        for title, rank in means.rank().items()
    ]
    table["first"] = (ranks == 1).mean().map("{:.0%}".format)
    return table


def _shares(chance: np.random.Generator, count: int) -> np.ndarray[Any, Any]:
    """(draws, count): each one's share of a draw of `count` with replacement."""
    even = np.full(count, 1 / count)
    shares: np.ndarray[Any, Any] = chance.multinomial(count, even, _BOOTSTRAP) / count
    return shares


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
            have them, `modalities` and `distributions`, each as .csv, .md and .tex; and
            `curves.png`. Under
            another corruption than the paper's the names end in it.
        scheme: "mosi" or "sims".
        titles: see `scores_of`.
        reference: the title whose error the others' are compared with.
        corruption: under which the cells were scored.

    Returns:
        The table over all rates as Markdown.
    """

    def file(name: str) -> Path:
        return folder / file_under(corruption, name)

    scores = scores_of(paths, titles, corruption)
    ev.write_csv(file("scores.csv"), scores)
    metrics = METRICS[scheme]
    overall = summary(scores, metrics)
    errors = overall[overall["metric"] == "mae"].set_index("method")["mean"]
    cells: dict[str, list[Path]] = {}
    for path in paths:
        cells.setdefault(title_of(path, titles), []).append(path)
    beside = None
    if len(cells) > 1:
        errors_of = {t: utterance_errors(p, corruption) for t, p in cells.items()}
        beside = standing(*resampled_errors(errors_of), reference)
    text = _write_table(file("overall"), overall, errors, metrics, beside)
    _write_table(file("rates"), summary(scores, metrics, by_rate), errors, metrics)
    told = summary(scores, DISTRIBUTION_SCORES, by_rate)
    if not set(told["method"]) <= set(ev.REFERENCES):
        _write_table(file("distributions"), told, errors, DISTRIBUTION_SCORES)
    if (scores["available"] == "l").any():
        subsets = summary(scores, metrics, by_subset)
        _write_table(file("modalities"), subsets, errors, metrics)
    drawn = ("mae", "acc2" if scheme == "sims" else "acc2_neg_pos")
    save_figure(robustness_figure(scores, drawn), file("curves.png"))
    return text


def _write_table(
    path: Path,
    means: pd.DataFrame,
    errors: pd.Series,
    metrics: Sequence[str],
    beside: pd.DataFrame | None = None,
) -> str:
    """Write .csv, .md and .tex, the largest errors first; returns the Markdown."""
    setting, _ = pd.factorize(means["setting"])
    means = means.iloc[np.lexsort([-means["method"].map(errors), setting])]
    ev.write_csv(path.with_suffix(".csv"), means)
    table = metric_columns(means, metrics)
    if beside is not None:
        table = table.join(beside).fillna("")
    for form, suffix in ((markdown, ".md"), (latex, ".tex")):
        with atomic_path(path.with_suffix(suffix)) as draft:
            draft.write_text(form(table) + "\n", encoding="utf-8")
    return markdown(table)
