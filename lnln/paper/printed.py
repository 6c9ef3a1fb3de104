"""The paper's printed tables, read from `data/paper`. Errors in them: chapter 27."""

from __future__ import annotations

import csv
from typing import Any

from lnln.data.files import data_dir


def printed(table: int, dataset: str) -> list[dict[str, Any]]:
    """The cells of one of the paper's tables.

    Args:
        table: 1 to 14.
        dataset: "MOSI", "MOSEI" or "SIMS".

    Returns:
        Rows with "method", "setting", "missing_rate", "metric", "value" (as printed)
        and, in Table 8, "std"; empty if the table has nothing on that data set.
    """
    path = data_dir() / "paper" / f"table{table:02d}.csv"
    with open(path, newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["dataset"] == dataset]


def markdown(table: int, dataset: str) -> str:
    """A printed table as Markdown, one line a method, setting and rate."""
    rows = printed(table, dataset)
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    lines: dict[tuple[str, ...], dict[str, str]] = {}
    for row in rows:
        place = (row["method"], row["setting"], row["missing_rate"])
        spread = f" ± {row['std']}" if row.get("std") else ""
        lines.setdefault(place, {})[row["metric"]] = row["value"] + spread
    # A column that says the same everywhere says nothing.
    names = ("method", "setting", "rate")
    told = [i for i in range(3) if len({place[i] for place in lines}) > 1] or [0]
    head = [*(names[i] for i in told), *metrics]
    body = [
        [*(place[i] for i in told), *(cells.get(m, "") for m in metrics)]
        for place, cells in lines.items()
    ]
    rule = ["---"] * len(head)
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *body))
