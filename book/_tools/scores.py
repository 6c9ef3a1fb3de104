"""Collect the scores of finished runs into one small file for a chapter.

    python book/_tools/scores.py data/compare/NAME.csv RUN [RUN ...]

RUN is a folder that `lnln evaluate`, `lnln compare` or `lnln reproduce` has
scored, called NAME-SEED. What is written is the mean over the mask seeds at
each rate; with --by-mask the mean over r = 0 to 0.9 for each mask seed, with
--by-utterance the mean absolute error of each test utterance. The
score on the validation split by which the epoch was chosen, "validation",
and the "epoch" are in it, too, without a rate (not with the last two).
"""

import argparse
import sys
from pathlib import Path

import pandas as pd

from lnln.evaluation.sweep import REFERENCES, load_record, read_csv, write_csv
from lnln.evaluation.tables import utterance_errors
from lnln.missing.erasing import TEST_RATES

METRICS = ("mae", "corr", "acc2_neg_pos", "acc7", "completeness")
METRICS += ("log_score", "crps", "coverage", "divergence")


def scores(folder: Path, by_mask: bool) -> pd.DataFrame:
    """The scores of a run.

    Args:
        folder: of the run.
        by_mask: a row per mask seed instead of a row per rate.

    Returns:
        The columns "run", "seed", "corruption", "metric", "rate" or
        "mask_seed", and "value".

    Raises:
        FileNotFoundError: the run was not scored.
    """
    files = sorted(folder.glob("robustness*.csv"))
    if not files:
        raise FileNotFoundError(
            f"{folder}: not scored; lnln evaluate {folder}"
        )
    record = load_record(folder)
    own = "".join(record["preset"]["train"]["modalities"])
    every = pd.concat(map(read_csv, files))
    used = every.metric.isin(METRICS) & (every.available == own)
    used &= ~every.method.isin(REFERENCES)
    if by_mask:
        used &= every.rate.isin(TEST_RATES)
    by = ["seed", "corruption", "metric", "mask_seed" if by_mask else "rate"]
    means = every[used].groupby(by, sort=False)["value"].mean().reset_index()
    if (best := record["best"].get("validation")) and not by_mask:
        chosen = {"metric": ["validation", "epoch"]}
        chosen["value"] = [best["score"], best["epoch"]]
        chosen = pd.DataFrame(chosen)
        chosen[["seed", "corruption"]] = means.seed[0], "random"
        means = pd.concat([means, chosen])
    means.insert(0, "run", folder.name.rsplit("-", 1)[0])
    return means


def errors(folder: Path) -> pd.DataFrame:
    """A row with the columns "run", "seed" and a number per utterance."""
    row = utterance_errors([folder]).rename_axis(index="seed").reset_index()
    row.insert(0, "run", folder.name.rsplit("-", 1)[0])
    return row.round(4)


def main() -> int:
    """Write the file."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--by-mask", action="store_true")
    forms.add_argument("--by-utterance", action="store_true")
    options = parser.parse_args()
    if options.by_utterance:
        table = pd.concat(map(errors, options.runs))
    else:
        table = pd.concat(scores(r, options.by_mask) for r in options.runs)
        table["value"] = table["value"].map("{:.5f}".format)
    write_csv(options.out, table)
    print(f"{options.out}: {len(table)} lines of {len(options.runs)} runs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
