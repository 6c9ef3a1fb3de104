"""Features stored in other shapes than (N, T, d), brought into it.

Some scripts keep one array per utterance, of its own length; some one vector per
utterance; some put features before frames. What the shapes cannot tell stays as it is.
"""

from __future__ import annotations

import numpy as np

from lnln.data.mmsa.fields import Field

# Padding may take this many times the space of the frames; beyond, one utterance is
# far longer than all others, or a small file repeats one array without end.
_PADDING, _FREE = 50, 1 << 26


def regular(fields: list[Field]) -> None:
    """Bring audio or vision into (N, T, d), in the content of the splits.

    Args:
        fields: the frames of all splits; lengths stand under the key with "_lengths"
            behind. Lists of arrays get one T in all splits, since a model is built for
            the sizes of the training split.

    Raises:
        DataError: arrays of several widths, or padding that would fill the memory.
    """
    listed = [_arrays(field.content.get(field.key)) for field in fields]
    # A vector is one frame.
    frames = [len(x) if x.ndim == 2 else 1 for arrays in listed for x in arrays or ()]
    for field, arrays in zip(fields, listed, strict=True):
        if arrays is not None:
            _pad(field, arrays, max(frames))
        else:
            _complete(field)


def _arrays(value: object) -> list[np.ndarray] | None:
    """The arrays of a list or object array of nothing but numeric arrays."""
    if isinstance(value, np.ndarray) and value.dtype.kind == "O" and value.ndim == 1:
        value = list(value)
    if not isinstance(value, (list, tuple)) or not value:
        return None
    items = [x for x in value if isinstance(x, np.ndarray) and x.dtype.kind in "iuf"]
    return items if len(items) == len(value) else None


def _complete(field: Field) -> None:
    """Give one array for all utterances the axis that it lacks, or exchange two."""
    value = field.content.get(field.key)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iuf":
        return
    if value.ndim == 2 and value.size:
        field.content[field.key] = value[:, None]
        field.mend("one vector an utterance, read as a sequence of one frame")
    elif value.ndim == 3 and value.size:
        _turn(field, value)


def _pad(field: Field, items: list[np.ndarray], longest: int) -> None:
    own = sum({id(item): item.size * 4 for item in items}.values())
    ranks = {item.ndim for item in items}
    if ranks == {1}:
        widths = {len(item) for item in items}
        if len(widths) > 1:
            raise field.error(
                f"holds one vector an utterance, of {len(widths)} different sizes",
                "store (frames, features) for each utterance",
            )
        items = [item[None] for item in items]
    elif ranks != {2}:
        raise field.error(
            f"holds arrays of {sorted(ranks)} axes, expected (frames, features)"
        )
    full = [item for item in items if len(item)]
    widths = {item.shape[1] for item in full}
    if len(widths) != 1 or 0 in widths:
        raise field.error(
            f"holds arrays that are {sorted(widths)} wide, expected one width"
        )
    (width,) = widths
    lengths = [len(item) for item in items]
    size = len(items) * longest * width * 4
    if size > max(_FREE, _PADDING * own):
        raise field.error(
            f"would take {size / 1e9:.1f} GB with every utterance padded to the "
            f"longest ({longest} frames)",
            "cut or average the frames of the longest ones",
        )
    frames = np.zeros((len(items), longest, width), dtype=np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for row, item in zip(frames, items, strict=True):
            row[: len(item)] = item if len(item) else 0
    field.content[field.key] = frames
    field.mend("one array an utterance, padded to one length")
    if not field.at(f"{field.key}_lengths"):
        field.content[f"{field.key}_lengths"] = lengths


def _turn(field: Field, value: np.ndarray) -> None:
    """Exchange frames and features if the lengths can only count the last axis."""
    stated = field.content.get(f"{field.key}_lengths")
    if isinstance(stated, (list, tuple)):
        if not all(type(n) in (int, float) for n in stated):
            return
        stated = np.array([float(max(0, min(n, 10**9))) for n in stated])
    if not isinstance(stated, np.ndarray) or stated.dtype.kind not in "iuf":
        return
    count, rows, columns = value.shape
    if stated.shape != (count,) or not rows < stated.max() <= columns:
        return
    behind = np.arange(columns) >= stated[:, None]
    # Only if all is zero behind the lengths do they count the last axis.
    if not behind.any():
        return
    silent = all(not value[i][:, behind[i]].any() for i in range(count))
    if silent:
        field.content[field.key] = value.transpose(0, 2, 1)
        field.mend(
            f"({count}, {rows}, {columns}) read as (N, features, frames), since the"
            " lengths count the last axis"
        )
