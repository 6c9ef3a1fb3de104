"""The paper's printed tables, read from `data/paper`. Errors in them: chapter 27."""

from __future__ import annotations

import pandas as pd

from lnln.data.files import data_dir


def printed(table: int, dataset: str) -> pd.DataFrame:
    """The cells of one of the paper's tables.

    Args:
        table: 1 to 14.
        dataset: "MOSI", "MOSEI" or "SIMS".

    Returns:
        Texts in the columns "method", "setting", "missing_rate", "metric", "value" (as
        printed) and, in Table 8, "std"; empty if the table has nothing on that data
        set.
    """
    path = data_dir() / "paper" / f"table{table:02d}.csv"
    cells = pd.read_csv(path, dtype=str, keep_default_na=False)
    return cells[cells["dataset"] == dataset].reset_index(drop=True)


def side_by_side(cells: pd.DataFrame) -> pd.DataFrame:
    """A printed table with a column per metric.

    Args:
        cells: from `printed`.

    Returns:
        Texts; the index is the method, the setting and the rate, less what is the same
        everywhere.
    """
    spread = " ± " + cells["std"] if "std" in cells else ""
    texts = cells.assign(text=cells["value"] + spread, rate=cells["missing_rate"])
    lines = ["method", "setting", "rate"]
    told = [name for name in lines if texts[name].nunique() > 1] or ["method"]
    texts = texts.set_index([*lines, "metric"])["text"]
    table = texts.unstack("metric", sort=False).fillna("")
    return table.droplevel([name for name in lines if name not in told])
