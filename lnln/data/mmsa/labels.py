"""The labels of a file: scores and their scale; numbered classes are refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from lnln.data.errors import SettingsError
from lnln.data.mmsa.fields import Doubles, Field, read_numbers

#: Largest score of each scheme.
LIMITS = {"mosi": 3.0, "sims": 1.0}
# Under these keys other data sets keep classes.
_CLASS_KEYS = (
    "classification_labels",
    "annotations",
    "emotion",
    "emotions",
    "emotion_labels",
    "sarcasm",
    "humor",
)
# Fewer labels than this may be whole numbers by chance.
_ENOUGH = 10
_SCORES = (
    "the book predicts a score, a number on a scale: give regression_labels in [-3, 3] "
    "or [-1, 1]; classes in order (negative, neutral, positive) can be written as -1, "
    "0, 1; emotions, humour or sarcasm have no such scale and cannot be learnt here"
)


def check_scheme(scheme: str | None) -> None:
    """Raise SettingsError if `scheme` is unknown."""
    if scheme is not None and scheme not in LIMITS:
        raise SettingsError(
            f"scheme must be one of {', '.join(LIMITS)}, not {scheme!r}"
        )


def labels_field(field: Field, needed: bool = True) -> Field:
    """The field of a split that holds the labels.

    Args:
        field: any field of the split.
        needed: whether classes alone are a fault.

    Returns:
        `regression_labels`, or what early Self-MM and MulT files call it.

    Raises:
        DataError: there are classes only.
    """
    for key in ("regression_labels", "labels", "label"):
        if field.at(key):
            return field.at(key)
    for key in _CLASS_KEYS if needed else ():
        if field.at(key):
            raise field.at("regression_labels").error(
                f"the key is missing; {key} holds classes", _SCORES
            )
    return field.at("regression_labels")


def read_labels(field: Field) -> Doubles:
    """Read the scores of a split; NaN where an utterance has none.

    Args:
        field: from `labels_field`; (N,) numbers, also (N, 1) or (N, 1, 1), or the
            seven columns of CMU-MOSEI, sentiment in front of six emotions.

    Returns:
        (N,) float64.

    Raises:
        DataError: something else than numbers, or several columns.
    """
    value = field.value
    table = isinstance(value, np.ndarray) and value.ndim > 1 and value.size > 0
    if isinstance(value, np.ndarray) and table and value.size != len(value):
        flat = value.reshape(len(value), -1)
        if not _sentiment_and_emotions(flat):
            raise field.error(
                f"has shape {value.shape}, expected (N,); several columns are classes",
                _SCORES,
            )
        field.note("first of 7 columns read as the sentiment, six emotions ignored")
        content = {**field.content, field.key: flat[:, 0]}
        field = replace(field, content=content)
    elif _first(value) is str:
        raise field.error("holds a str, expected numbers", _SCORES)
    return read_numbers(field, gaps=True)


def unlabelled(field: Field) -> Doubles:
    """NaN for each utterance of a split whose labels nobody asks for and nobody gave.

    Args:
        field: any field of the split.

    Returns:
        (N,) NaN, counted by the frames.

    Raises:
        DataError: there are no frames to count.
    """
    for key in ("audio", "vision"):
        value = field.content.get(key)
        if isinstance(value, np.ndarray) and value.ndim:
            return np.full(len(value), np.nan)
    raise field.at("audio").error("is missing or no array", "store (N, T, d) rows")


def _sentiment_and_emotions(flat: np.ndarray) -> bool:
    if flat.shape[1] != 7 or flat.dtype.kind not in "iuf":
        return False
    with np.errstate(invalid="ignore"):
        emotions = bool((flat[:, 1:] >= 0).all() and (flat[:, 1:] <= 3.5).all())
        return emotions and bool((flat[:, 0] < 0).any())


def _first(value: object) -> type:
    if isinstance(value, np.ndarray):
        return str if value.dtype.kind == "U" else type(next(iter(value.flat), None))
    return type(value[0]) if isinstance(value, (list, tuple)) and value else type(None)


def refuse_classes(fields: list[Field], labels: list[Doubles]) -> None:
    """Raise DataError if the labels of all splits look like numbered classes."""
    numbers = np.concatenate(labels)
    numbers = numbers[~np.isnan(numbers)]
    if len(numbers) < _ENOUGH or (numbers != np.trunc(numbers)).any():
        return
    kinds = np.unique(numbers)
    # Two values, or 0, 1, 2 and so on: a scale of sentiment has both signs.
    if len(kinds) == 2 or (len(kinds) > 2 and kinds[0] >= 0):
        shown = ", ".join(f"{x:g}" for x in kinds[:8])
        raise fields[0].error(
            f"holds only the whole numbers {shown}, as classes have", _SCORES
        )
    if len(kinds) > 2:
        fields[0].log.notes.append(
            f"all labels are whole numbers ({kinds[0]:g} to {kinds[-1]:g}), read as "
            "scores on a scale."
        )


def decide_scheme(
    labels: list[Doubles], said: str | None, stated: str | None, simulated: bool
) -> tuple[str, str]:
    """Which scheme scores the labels, and a sentence on why.

    Args:
        labels: (N,) scores of each split.
        said: by the user.
        stated: by the file.
        simulated: whether the data are the simulated corpus.

    Returns:
        "mosi" or "sims", and the reason.
    """
    known = np.abs(np.concatenate(labels))
    known = known[~np.isnan(known)]
    if said is not None:
        return said, f"scored as {said}: --scheme says so."
    if stated is not None:
        return stated, f"scored as {stated}: the file says so."
    if simulated:
        return "mosi", "scored as mosi: the corpus is simulated."
    if not len(known):
        return "mosi", "there are no labels; if there were, they would be read as mosi."
    largest = float(known.max())
    if largest <= 1 + 1e-4:
        return "sims", (
            "scored as sims: all labels lie in [-1, 1]; say --scheme mosi if they are "
            "of a scale from -3 to 3."
        )
    return "mosi", f"scored as mosi: labels reach {largest:g} in size."


def in_range(field: Field, numbers: Doubles, scheme: str) -> torch.Tensor:
    """Labels as a tensor, those a little too large clipped.

    Args:
        field: where they come from.
        numbers: (N,) finite scores.
        scheme: "mosi" or "sims".

    Returns:
        (N,) float32 in the range of the scheme.

    Raises:
        DataError: a label lies outside.
    """
    limit = LIMITS[scheme]
    size = np.abs(numbers)
    # Old MOSEI releases have scores a little above 3; the metrics clip them too.
    allowed = 3.5 if scheme == "mosi" else limit + 1e-4
    beyond = np.flatnonzero(size > allowed)
    if len(beyond):
        raise field.error(
            f"{len(beyond)} labels lie outside [-{limit:g}, {limit:g}], the first in"
            f" sample {beyond[0]} ({numbers[beyond[0]]:g})",
            "rescale them" + ("" if scheme == "mosi" else ", or choose --scheme mosi"),
        )
    over = int((size > limit + 1e-4).sum())
    if over:
        field.mend(f"{over} labels outside [-{limit:g}, {limit:g}] clipped")
        numbers = np.clip(numbers, -limit, limit)
    return torch.from_numpy(numbers.astype(np.float32))
