"""Tell what a data set holds, and whether its file is a published one."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch

from lnln.data.batch import MODALITIES, Batch, Dataset
from lnln.data.mmsa.layouts.features import PUBLISHED
from lnln.evaluation.tables import plain
from lnln.missing.gaps import missing_shares
from lnln.training.scoring.metrics import FINEST, class_counts


def describe(dataset: Dataset) -> str:
    """Tell what a data set holds: the text that `lnln data check` prints.

    Args:
        dataset: the data set.

    Returns:
        Lines of at most 100 columns (a longer path keeps its line): origin, sizes,
        lengths, label counts and what was mended on reading; of a file that says how
        its features were made also that, and what is missing.
    """
    origin = PUBLISHED.get(dataset.sha256)
    known = f"published with MMSA as {origin}" if origin else "not a published file"
    classes = FINEST[dataset.scheme][1]
    splits, shapes, lengths, labels = dataset.splits, {}, {}, {}
    for name, split in splits.items():
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
        given = values[~values.isnan()]
        signs = [int((given.sign() == sign).sum()) for sign in (-1, 0, 1)]
        found = (
            class_counts(given, dataset.scheme) if len(given) else [0] * len(classes)
        )
        labels[name] = [*found, "|", *signs]
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
    if dataset.features:
        lines += ["", "missing (share of words and rows)"]
        missing = {name: _missing(split.batch) for name, split in splits.items()}
        lines += [_table(missing, "text", "audio", "vision"), "", "features"]
        lines += _described(dataset.features)
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


def on_top(batch: Batch, rates: Sequence[float]) -> str:
    """What is missing before anything is erased, and in all at each missing rate.

    Args:
        batch: a split with gaps of its own.
        rates: r, what a sweep erases on top.
    """
    before = missing_shares(batch)
    lines = {
        f"{rate:g}": [f"{1 - (1 - share) * (1 - rate):.1%}" for share in before]
        for rate in rates
    }
    columns = ("text", "audio", "vision")
    table = pd.DataFrame.from_dict(lines, "index", columns=columns)
    shown = plain(table.rename_axis("r"))
    return f"missing in all where r is erased on top of the gaps of the clips\n{shown}"


def _missing(batch: Batch) -> list[str]:
    return [f"{share:.1%}" for share in missing_shares(batch)]


def _described(values: dict[str, Any], inside: str = "") -> list[str]:
    """One line per value, such as "- audio rate: 12.5"."""
    lines = []
    for key, value in values.items():
        if isinstance(value, dict):
            lines += _described(value, f"{inside}{key} ")
            continue
        shown = ", ".join(map(str, value)) if isinstance(value, list) else value
        lines += _item(f"{inside}{key}: {shown}")
    return lines


def _table(by_split: dict[str, Any], *columns: str) -> str:
    table = pd.DataFrame.from_dict(by_split, "index", columns=columns or None)
    return plain(table.rename_axis("split"))
