"""Read and write the MMSA feature files.

These files of CMU-MOSI, CMU-MOSEI and CH-SIMS come from several scripts and
releases that disagree on padding side, lengths, axis order and key names. Reading
brings them all into the one form of `lnln.data`: what can be mended is mended and
reported in `Dataset.mended`, everything else is a `DataError` with a remedy.
"""

from __future__ import annotations

import pickle
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lnln.data import MODALITIES, SPLITS, Batch, DataError, Dataset, Split
from lnln.errors import SettingsError
from lnln.mmsa_fields import (
    REEXTRACT,
    Doubles,
    Field,
    Ints,
    read_numbers,
    read_strings,
    read_text,
)
from lnln.mmsa_padding import align, padded_left, read_sequences
from lnln.paths import atomic_path, sha256_of
from lnln.unpickle import load_plain

_LIMITS = {"mosi": 3.0, "sims": 1.0}
_NAMES = {(5, 20): "mosi", (74, 35): "mosei", (33, 709): "sims"}
_POLARITY = ("Negative", "Neutral", "Positive")

_Aligned = tuple[torch.Tensor, torch.Tensor]  # (N, T, d) frames, (N,) lengths


@dataclass(frozen=True)
class _Raw:
    """One split before the scheme is known."""

    labels_at: Field
    labels: Doubles
    tokens: Ints
    token_lengths: Ints
    ids: tuple[str, ...]


def read_mmsa(
    path: str | Path, scheme: str | None = None, name: str | None = None
) -> Dataset:
    """Read an MMSA feature file of MOSI, MOSEI or SIMS, aligned or unaligned.

    Nothing in the file is executed. Audio and vision padded on the left are moved
    to the front, wrong lengths are counted anew, non-finite frames become 0; each
    such mending is a sentence in `Dataset.mended`, the first two also a warning.

    Args:
        path: the pickle file.
        scheme: "mosi" (labels in [-3, 3]) or "sims" ([-1, 1]); None: detected.
        name: the data set's name; None: "simulated" by the ids, else known feature
            widths, else the file's stem.

    Returns:
        The three splits; without length keys, lengths run to the last non-zero frame.

    Raises:
        DataError: a fault that cannot be mended, with file, split, key and remedy.
        SettingsError: an unknown `scheme`.
    """
    if scheme is not None and scheme not in _LIMITS:
        raise SettingsError(
            f"scheme must be one of {', '.join(_LIMITS)}, not {scheme!r}"
        )
    path = Path(path)
    notes: list[str] = []
    raws = [_read_split(field) for field in _fields(path, load_plain(path), notes)]
    audio = _read_modality(raws, "audio")
    vision = _read_modality(raws, "vision")
    found = _detect_name(raws[0].ids, audio[0][0].shape[2], vision[0][0].shape[2])
    scheme = scheme or _detect_scheme(raws, found)
    parts = zip(SPLITS, raws, audio, vision, strict=True)
    return Dataset(
        name=name or found or path.stem,
        scheme=scheme,
        splits={split: _finish(raw, a, v, scheme) for split, raw, a, v in parts},
        source=str(path),
        sha256=sha256_of(path),
        mended=tuple(notes),
    )


def _fields(path: Path, content: object, notes: list[str]) -> list[Field]:
    if not isinstance(content, dict):
        raise DataError(
            f"{path}: holds a {type(content).__name__} instead of a dict of the"
            f" splits {', '.join(SPLITS)}; use a processed MMSA file"
        )
    for split in SPLITS:
        if not isinstance(content.get(split), dict):
            found = ", ".join(repr(key)[:22] for key in list(content)[:8]) or "nothing"
            raise DataError(
                f"{path}: split {split!r} is missing or no dict (found: {found});"
                f" {REEXTRACT}"
            )
    return [Field(path, split, content[split], notes) for split in SPLITS]


def _read_split(field: Field) -> _Raw:
    labels_at = field.at("regression_labels")
    if not labels_at and field.at("labels"):
        labels_at = field.at("labels")  # early Self-MM files
    labels = read_numbers(labels_at)
    count = len(labels)
    if not count:
        raise labels_at.error("the split is empty")
    made_up = tuple(f"{field.split}/{i}" for i in range(count))
    return _Raw(
        labels_at,
        labels,
        *read_text(field.at("text_bert"), count),
        ids=read_strings(field.at("id"), count) or made_up,
    )


def _read_modality(raws: list[_Raw], key: str) -> list[_Aligned]:
    """Read and align audio or vision in all splits."""
    fields = [raw.labels_at.at(key) for raw in raws]
    sequences = [
        read_sequences(field, len(raw.labels))
        for field, raw in zip(fields, raws, strict=True)
    ]
    width = sequences[0].frames.shape[2]
    for field, item in zip(fields, sequences, strict=True):
        if item.frames.shape[2] != width:
            raise field.error(
                f"has {item.frames.shape[2]} features, but {SPLITS[0]} has {width}"
            )
    left = padded_left(sequences)
    aligned = []
    for field, item in zip(fields, sequences, strict=True):
        lengths, mended = align(item, left)
        if mended:
            # Level 3 is the caller of `read_mmsa`.
            warnings.warn(f"{field.path}: {field.note(mended)}", stacklevel=3)
        aligned.append((torch.from_numpy(item.frames), torch.from_numpy(lengths)))
    return aligned


def _detect_name(ids: tuple[str, ...], d_a: int, d_v: int) -> str | None:
    # The simulated corpus has the feature widths of MOSI.
    if all(name.startswith("simulated") for name in ids):
        return "simulated"
    return _NAMES.get((d_a, d_v))


def _detect_scheme(raws: list[_Raw], name: str | None) -> str:
    if name == "simulated":
        return "mosi"
    small = all(np.abs(raw.labels).max() <= 1 for raw in raws)
    marked = (
        name == "sims"
        or raws[0].tokens.shape[1] == 39
        or all(raw.labels_at.at("regression_labels_T") for raw in raws)
    )
    return "sims" if small and marked else "mosi"


def _finish(raw: _Raw, audio: _Aligned, vision: _Aligned, scheme: str) -> Split:
    field, count = raw.labels_at, len(raw.labels)
    batch = Batch(
        torch.from_numpy(raw.tokens),
        torch.from_numpy(raw.token_lengths),
        *audio,
        *vision,
        labels=_in_range(field, raw.labels, scheme),
    )
    extra = {}
    for modality, letter in zip(MODALITIES, "TAV", strict=True):
        part = field.at(f"regression_labels_{letter}")
        if scheme == "sims" and part:
            extra[modality] = _in_range(part, read_numbers(part, count), scheme)
    raw_text = read_strings(field.at("raw_text"), count) or ("",) * count
    return Split(batch, raw.ids, raw_text, extra)


def _in_range(field: Field, numbers: Doubles, scheme: str) -> torch.Tensor:
    limit = _LIMITS[scheme]
    size = np.abs(numbers)
    # Old MOSEI releases have scores a little above 3; the metrics clip them too.
    allowed = 3.5 if scheme == "mosi" else limit + 1e-4
    beyond = np.flatnonzero(size > allowed)
    if len(beyond):
        raise field.error(
            f"{len(beyond)} labels lie outside [-{limit:g}, {limit:g}], the first in"
            f" sample {beyond[0]} ({numbers[beyond[0]]:g})",
            f"rescale them, or choose another scheme than {scheme!r}",
        )
    over = int((size > limit + 1e-4).sum())
    if over:
        field.note(f"{over} labels outside [-{limit:g}, {limit:g}] clipped")
        numbers = np.clip(numbers, -limit, limit)
    return torch.from_numpy(numbers.astype(np.float32))


def write_mmsa(dataset: Dataset, path: str | Path) -> None:
    """Write a data set in the layout of the published MMSA files.

    The file appears whole or not at all, and loads under NumPy 1 and 2.

    Args:
        dataset: what to write; the scheme is detected again on reading.
        path: the file to write or replace.

    Raises:
        OutputError: the folder is not writable.
    """
    content = {name: _published_form(split) for name, split in dataset.splits.items()}
    with atomic_path(Path(path)) as draft, open(draft, "wb") as file:
        _Pickler(file, protocol=4).dump(content)


class _Pickler(pickle.Pickler):
    def reducer_override(self, obj: object) -> Any:
        # NumPy 2 would name its private numpy._core, which old NumPy 1 lacks.
        if type(obj) is np.ndarray:
            return np.ndarray, ((0,), "b"), obj.__reduce__()[2]
        return NotImplemented


def _published_form(split: Split) -> dict[str, object]:
    batch = split.batch.to("cpu")
    mask = batch.mask("l").long()
    polarity = [int(sign) + 1 for sign in torch.sign(batch.labels).tolist()]
    content: dict[str, object] = {
        "raw_text": list(split.raw_text),
        "id": list(split.ids),
        "text_bert": torch.stack(
            [batch.tokens, mask, torch.zeros_like(mask)], dim=1
        ).numpy(),
        "audio": batch.audio.numpy(),
        "vision": batch.vision.numpy(),
        "audio_lengths": batch.audio_lengths.tolist(),
        "vision_lengths": batch.vision_lengths.tolist(),
        "annotations": [_POLARITY[i] for i in polarity],
        "classification_labels": np.array(polarity, dtype=np.float32),
        "regression_labels": batch.labels.numpy(),
    }
    for modality, letter in zip(MODALITIES, "TAV", strict=True):
        if modality in split.modality_labels:
            numbers = split.modality_labels[modality].cpu().numpy()
            content[f"regression_labels_{letter}"] = numbers
    return content
