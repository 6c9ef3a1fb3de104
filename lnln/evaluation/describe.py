"""Tell what a data set holds, and whether its file is a published one."""

from __future__ import annotations

import textwrap
from typing import Any

import pandas as pd
import torch

from lnln.data.batch import MODALITIES, Dataset
from lnln.evaluation.tables import plain
from lnln.training.scoring.metrics import FINEST, class_counts

#: The files published with MMSA by their SHA-256.
PUBLISHED = dict(
    line.split(maxsplit=1)
    for line in """\
78e0f8b5ef8ff71558e7307848fc1fa929ecb078203f565ab22b9daab2e02524 MOSI unaligned_50.pkl
d3994fd25681f9c7ad6e9c6596a6fe9b4beb85ff7d478ba978b124139002e5f9 MOSI aligned_50.pkl
ad8b23d50557045e7d47959ce6c5b955d8d983f2979c7d9b7b9226f6dd6fec1f MOSEI unaligned_50.pkl
45eccfb748a87c80ecab9bfac29582e7b1466bf6605ff29d3b338a75120bf791 MOSEI aligned_50.pkl
c9e20c13ec0454d98bb9c1e520e490c75146bfa2dfeeea78d84de047dbdd442f SIMS unaligned_39.pkl
""".splitlines()
)


def describe(dataset: Dataset) -> str:
    """Tell what a data set holds: the text that `lnln data check` prints.

    Args:
        dataset: the data set.

    Returns:
        Lines of at most 100 columns (a longer path keeps its line): origin, sizes,
        lengths, label counts and what was mended on reading.
    """
    origin = PUBLISHED.get(dataset.sha256)
    known = f"published with MMSA as {origin}" if origin else "not a published file"
    shapes, lengths, labels = {}, {}, {}
    for name, split in dataset.splits.items():
        batch, values = split.batch, split.batch.labels
        full = (batch.token_lengths == batch.tokens.shape[1]).float().mean().item()
        shapes[name] = {
            "N": len(split),
            "T_l": batch.tokens.shape[1],
            "T_a x d_a": " x ".join(map(str, batch.audio.shape[1:])),
            "T_v x d_v": " x ".join(map(str, batch.vision.shape[1:])),
            "full-length sentences": f"{full:.1%}",
        }
        lengths[name] = [_spread(batch.lengths(m)) for m in MODALITIES]
        counts = class_counts(values, dataset.scheme)
        signs = [int((values.sign() == sign).sum()) for sign in (-1, 0, 1)]
        labels[name] = [*counts, "|", *signs]
    classes = FINEST[dataset.scheme][1]
    lines = [f"file      {dataset.source}", f"SHA-256   {dataset.sha256}"]
    lines += [f"          {known}"]
    lines += [f"data set  {dataset.name}, scored as {dataset.scheme}", ""]
    lines += [_table(shapes), "", "lengths (min / median / max)"]
    lines += [_table(lengths, "text", "audio", "vision"), "", "labels"]
    lines += [_table(labels, *classes, "|", "neg", "zero", "pos"), "", "read as"]
    for sentence in (dataset.layout or "simulated", *dataset.notes):
        lines += _item(sentence)
    lines += ["", "mended on reading"]
    for sentence in dataset.mended or ("nothing",):
        lines += _item(sentence)
    return "\n".join(lines)


def said(dataset: Dataset) -> list[str]:
    """One line per thing that was mended, or left open by the file."""
    lines = [f"mended: {sentence}" for sentence in dataset.mended]
    return lines + [f"noted: {sentence}" for sentence in dataset.notes]


def _item(sentence: str) -> list[str]:
    return textwrap.wrap(sentence, 98, initial_indent="- ", subsequent_indent="  ")


def _spread(lengths: torch.Tensor) -> str:
    low, high = int(lengths.min()), int(lengths.max())
    return f"{low} / {int(lengths.median())} / {high}"


def _table(by_split: dict[str, Any], *columns: str) -> str:
    table = pd.DataFrame.from_dict(by_split, "index", columns=columns or None)
    return plain(table.rename_axis("split"))
