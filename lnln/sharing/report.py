"""A paragraph and a table about runs, in LaTeX or Markdown, from their records."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from lnln.data.errors import SettingsError
from lnln.evaluation.plots import METRIC_TITLES
from lnln.evaluation.tables import latex, markdown
from lnln.missing.erasing import TEST_RATES
from lnln.models import TITLES
from lnln.sharing.facts import (
    Scored,
    alike,
    facts,
    grouped,
    read_scored,
    references,
)
from lnln.sharing.intervals import interval
from lnln.training.scoring.metrics import METRICS

#: What is told of each scheme where nothing else is asked for.
HEADLINE = {
    "mosi": ("mae", "corr", "acc2_neg_pos", "acc7"),
    "sims": ("mae", "corr", "acc2", "acc3"),
}
_SPREAD = (
    "A number is a mean over mask seeds, then over training seeds; ± is half of the "
    "95 % interval over training seeds, by Student's t."
)
_ESCAPES = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
}


def report(
    folders: Sequence[Path | str],
    form: str = "markdown",
    *,
    corruption: str = "random",
    metrics: Sequence[str] | None = None,
) -> str:
    """Tell of runs what a paper must tell.

    Args:
        folders: of runs that `lnln evaluate` or `lnln compare` has scored, which differ
            in method and seed only.
        form: "markdown" or "latex".
        corruption: under which they were scored.
        metrics: columns of the table; by default `HEADLINE`.

    Returns:
        A paragraph of facts and a table: of one method a line a missing rate, of
        several a line a method, with the differences in MAE, paired by training seed.

    Raises:
        CheckpointError: a run is missing or was not scored.
        ReportError: the runs cannot stand in one table.
        SettingsError: an unknown metric or form.
    """
    if form not in ("markdown", "latex"):
        raise SettingsError(f"form {form!r} is unknown; it is markdown or latex")
    runs = [read_scored(folder, corruption) for folder in folders]
    alike(runs)
    scheme = runs[0].record["data"]["scheme"]
    metrics = HEADLINE[scheme] if metrics is None else metrics
    if unknown := set(metrics) - set(METRICS[scheme]):
        raise SettingsError(
            f"metric {min(unknown)!r} is unknown; choose from {METRICS[scheme]}"
        )
    several = len(runs) > len(grouped(runs))
    told = facts(runs, _SPREAD if several else "")
    table = table_of(runs, metrics)
    caption = f"{runs[0].record['data']['name']} data, {', '.join(grouped(runs))}"
    if form == "markdown":
        paragraph = "\n".join(f"- **{k}.** {' '.join(v)}" for k, v in told.items())
        return f"{paragraph}\n\n{markdown(table)}\n"
    return _latex_report(told, table, caption)


def table_of(runs: Sequence[Scored], metrics: Sequence[str]) -> pd.DataFrame:
    """The table of a report, as texts.

    Args:
        runs: on the same data; several of a method differ in their seed.
        metrics: its columns.

    Returns:
        Of one method a line a rate and their mean; of several a line a method and
        reference, the largest errors first, and the difference in MAE to the first.
    """
    groups = grouped(runs)
    if len(groups) == 1:
        return _by_rate(runs, metrics)
    lines = {
        title: {m: str(interval(list(_by_seed(g, m).values()))) for m in metrics}
        for title, g in groups.items()
    }
    order = {
        title: interval(list(_by_seed(g, "mae").values())).mean
        for title, g in groups.items()
    }
    for name, means in references(runs).items():
        lines[name] = {m: f"{means[m]:.3f}" if m in means else "" for m in metrics}
        order[name] = means["mae"]
    best = TITLES["lnln"] if TITLES["lnln"] in groups else next(iter(groups))
    for title in groups:
        if title != best:
            ours, theirs = _by_seed(groups[best], "mae"), _by_seed(groups[title], "mae")
            gaps = [theirs[seed] - ours[seed] for seed in theirs if seed in ours]
            lines[title][f"MAE less that of {best}"] = (
                interval(gaps).signed if gaps else ""
            )
    table = pd.DataFrame.from_dict(lines, orient="index").fillna("")
    table = table.loc[sorted(order, key=lambda title: -order[title])]
    return table.rename(columns=METRIC_TITLES).rename_axis("method")


def _by_rate(runs: Sequence[Scored], metrics: Sequence[str]) -> pd.DataFrame:
    lines = {
        f"{rate:.1f}": {
            m: str(interval(list(_by_seed(runs, m, [rate]).values()))) for m in metrics
        }
        for rate in TEST_RATES
    }
    lines["mean"] = {
        m: str(interval(list(_by_seed(runs, m).values()))) for m in metrics
    }
    table = pd.DataFrame.from_dict(lines, orient="index")
    return table.rename(columns=METRIC_TITLES).rename_axis("r")


def _by_seed(
    runs: Sequence[Scored], metric: str, rates: Sequence[float] = TEST_RATES
) -> dict[int, float]:
    """{training seed: mean over rates and mask seeds}."""
    means = {}
    for run in runs:
        swept = run.swept
        used = (swept["metric"] == metric) & swept["rate"].isin(rates)
        means[int(run.record["seed"])] = float(swept[used]["value"].mean())
    return means


def _latex_report(told: dict[str, list[str]], table: pd.DataFrame, caption: str) -> str:
    paragraph = "\n".join(
        rf"\textbf{{{_escaped(k)}.}} {_escaped(' '.join(v))}" for k, v in told.items()
    )
    return "\n".join(
        [
            paragraph,
            "",
            r"\begin{table}[t]",
            r"\centering\small",
            latex(table),
            rf"\caption{{{_escaped(caption)}. {_escaped(_caption(table))}}}",
            r"\end{table}",
            "",
        ]
    )


def _caption(table: pd.DataFrame) -> str:
    told = "Mean over missing rates 0 to 0.9" if table.index.name == "method" else ""
    told = told or "Scores by missing rate r; mean: r = 0 to 0.9"
    spread = table.map(lambda cell: "±" in cell).to_numpy().any()
    return f"{told}{'; ± 95 % interval over training seeds' if spread else ''}."


def _escaped(text: str) -> str:
    """Text as LaTeX; what stands in backticks becomes code that can be broken."""
    parts = re.split(r"`([^`]*)`", text)
    plain = ["".join(_ESCAPES.get(c, c) for c in part) for part in parts]
    # A SHA-256 is longer than a column, and TeX breaks no word in typewriter type.
    broken = [
        re.sub(r"([0-9a-f]{16})(?=[0-9a-f])", r"\1\\allowbreak ", part)
        for part in plain
    ]
    return "".join(
        rf"\texttt{{{part}}}" if place % 2 else part
        for place, part in enumerate(broken)
    )
