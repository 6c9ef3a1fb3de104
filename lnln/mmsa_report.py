"""Tell what a data set holds, and whether its file is a published one."""

from __future__ import annotations

import textwrap

import numpy as np
import numpy.typing as npt
import torch

from lnln.data import MODALITIES, Dataset

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
    shapes = [["split", "N", "T_l", "T_a x d_a", "T_v x d_v", "full-length sentences"]]
    lengths = [["split", "text", "audio", "vision"]]
    labels = [["split", *_bin_names(dataset.scheme), "|", "neg", "zero", "pos"]]
    for name, split in dataset.splits.items():
        batch = split.batch
        full = (batch.token_lengths == batch.tokens.shape[1]).float().mean().item()
        shapes.append([name, str(len(split)), str(batch.tokens.shape[1])])
        for frames in (batch.audio, batch.vision):
            shapes[-1].append(" x ".join(str(size) for size in frames.shape[1:]))
        shapes[-1].append(f"{full:.1%}")
        lengths.append([name, *(_spread(batch.lengths(m)) for m in MODALITIES)])
        values = batch.labels.double().cpu().numpy()
        signs = [int((np.sign(values) == s).sum()) for s in (-1, 0, 1)]
        counts = [str(n) for n in _histogram(values, dataset.scheme)]
        labels.append([name, *counts, "|", *(str(n) for n in signs)])
    lines = [f"file      {dataset.source}", f"SHA-256   {dataset.sha256}"]
    lines += [f"          {known}"]
    lines += [f"data set  {dataset.name}, scored as {dataset.scheme}", ""]
    lines += [*_table(shapes), "", "lengths (min / median / max)", *_table(lengths)]
    lines += ["", "labels", *_table(labels), "", "read as"]
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


def _bin_names(scheme: str) -> list[str]:
    if scheme == "sims":
        return ["[-1,-0.7]", "(-0.7,-0.1]", "(-0.1,0.1]", "(0.1,0.7]", "(0.7,1]"]
    return [str(i) for i in range(-3, 4)]


def _histogram(values: npt.NDArray[np.float64], scheme: str) -> npt.NDArray[np.int64]:
    if scheme == "sims":
        # Rounding undoes float32, in which -0.7 lies above the edge -0.7.
        edges = (-0.7, -0.1, 0.1, 0.7)
        classes = np.digitize(values.round(4), edges, right=True)
        return np.bincount(classes, minlength=5)
    return np.bincount(values.clip(-3, 3).round().astype(np.int64) + 3, minlength=7)


def _spread(lengths: torch.Tensor) -> str:
    low, high = int(lengths.min()), int(lengths.max())
    return f"{low} / {int(lengths.median())} / {high}"


def _table(rows: list[list[str]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
