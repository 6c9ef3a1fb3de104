"""Collect the scores of finished runs into one small file for a chapter.

    python book/_tools/scores.py data/compare/NAME.csv RUN [RUN ...]

RUN is a folder that `lnln evaluate`, `lnln compare` or `lnln reproduce` has
scored, called NAME-SEED. What is written is the mean over the mask seeds at
each rate; with --by-mask the mean over r = 0 to 0.9 for each mask seed.
"""

import argparse
import csv
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

from lnln.data.files import atomic_path
from lnln.evaluation.sweep import REFERENCES, load_record, read_csv
from lnln.missing.erasing import TEST_RATES

METRICS = ("mae", "corr", "acc2_neg_pos", "acc7", "completeness")


def scores(folder: Path, by_mask: bool) -> list[dict[str, Any]]:
    """The scores of a run.

    Args:
        folder: of the run.
        by_mask: a row a mask seed instead of a row a rate.

    Returns:
        Rows with "run", "seed", "corruption", "metric", "rate" or "mask_seed",
        and "value".

    Raises:
        FileNotFoundError: the run was not scored.
    """
    files = sorted(folder.glob("robustness*.csv"))
    if not files:
        raise FileNotFoundError(
            f"{folder}: not scored; lnln evaluate {folder}"
        )
    name = folder.name.rsplit("-", 1)[0]
    own = "".join(load_record(folder)["preset"]["train"]["modalities"])
    key = "mask_seed" if by_mask else "rate"
    values: dict[tuple[str, ...], list[float]] = {}
    for row in (row for path in files for row in read_csv(path)):
        swept = float(row["rate"]) in TEST_RATES
        used = row["metric"] in METRICS and row["available"] == own
        used &= row["method"] not in REFERENCES and (swept or not by_mask)
        if used:
            at = (row["seed"], row["corruption"], row["metric"], row[key])
            values.setdefault(at, []).append(float(row["value"]))
    columns = ("seed", "corruption", "metric", key)
    return [
        {
            "run": name,
            **dict(zip(columns, at, strict=True)),
            "value": f"{v:.5f}",
        }
        for at, v in ((at, fmean(found)) for at, found in values.items())
    ]


def main() -> int:
    """Write the file."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--by-mask", action="store_true")
    options = parser.parse_args()
    rows = [
        row
        for folder in options.runs
        for row in scores(folder, options.by_mask)
    ]
    with atomic_path(options.out) as draft:
        with open(draft, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    print(f"{options.out}: {len(rows)} scores of {len(options.runs)} runs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
