"""Audio and vision frames of an MMSA file: padding side, lengths, alignment.

The scripts that made these files disagree on the side of the padding, and some of
their lengths are wrong. The frames themselves decide: all-zero frames are padding
or gaps, and which of the two follows from the file as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lnln.data.mmsa.fields import Bools, Field, Ints, read_array, read_numbers


@dataclass(frozen=True)
class Sequences:
    """Frames of one modality in one split, and where they are non-zero.

    Attributes:
        frames: (N, T, d) float32, finite.
        first: (N,) the first non-zero frame, T where there is none.
        extent: (N,) one behind the last non-zero frame, 0 where there is none.
        stated: (N,) lengths as the file states them, from 1 to T, or None.
    """

    frames: npt.NDArray[np.float32]
    first: Ints
    extent: Ints
    stated: Ints | None


def read_sequences(field: Field) -> Sequences:
    """Read the frames and stated lengths of one modality.

    Args:
        field: the frames; the lengths stand under the key with "_lengths" behind.

    Returns:
        The sequences where the file has them, non-finite values set to 0.

    Raises:
        DataError: the frames are no (N, T, d) numbers, or a length is below 0.
    """
    array = read_array(field)
    count, size, width = array.shape
    frames = np.empty(array.shape, dtype=np.float32)
    present = np.empty((count, size), dtype=bool)
    infinite = missing = 0
    # In pieces, because every comparison of a whole MOSEI split takes 0.6 GB.
    step = max(1, (1 << 22) // (size * width))
    for start in range(0, count, step):
        piece = frames[start : start + step]
        with np.errstate(over="ignore", invalid="ignore"):
            piece[...] = array[start : start + step]
        broken = ~np.isfinite(piece)
        if broken.any():
            infinite += int(np.isinf(piece).sum())
            missing += int(np.isnan(piece).sum())
            piece[broken] = 0
        present[start : start + step] = (piece != 0).any(axis=2)
    if infinite or missing:
        field.mend(f"{infinite} infinite and {missing} NaN values set to 0")
    some: Bools = np.asarray(present.any(axis=1))
    stated = _stated_lengths(field.at(f"{field.key}_lengths"), some, size)
    return Sequences(
        frames=frames,
        first=np.where(some, present.argmax(axis=1), size),
        extent=np.where(some, size - present[:, ::-1].argmax(axis=1), 0),
        stated=stated,
    )


def _stated_lengths(field: Field, some: Bools, size: int) -> Ints | None:
    count = len(some)
    if not field:
        field.mend("missing; lengths run to the last non-zero frame")
        return None
    numbers = read_numbers(field)
    if (numbers != np.trunc(numbers)).any():
        raise field.error("holds lengths that are no integers")
    small = np.flatnonzero(numbers < 0)
    if len(small):
        raise field.error(
            f"{len(small)} lengths are below 0, the first in sample {small[0]}",
            "give a sample without frames length 0",
        )
    none = int(((numbers == 0) & ~some).sum())
    if none:
        field.mend(f"{none} of {count} samples have no frame; read as one missing one")
    longer = int((numbers > size).sum())
    if longer:
        field.mend(f"{longer} of {count} lengths exceed {size}; clipped")
    return np.clip(numbers, 1, size).astype(np.int64)


def padded_left(sequences: list[Sequences]) -> bool:
    """Decide for the whole file on which side a modality is padded.

    Args:
        sequences: the modality in all splits.

    Returns:
        True if more samples begin with zero frames and reach the end than begin
        at the front; full-length samples with a gap at the start stay few.
    """
    votes = 0
    for item in sequences:
        full = item.extent == item.frames.shape[1]
        votes += int(((item.first > 0) & full).sum()) - int((item.first == 0).sum())
    return votes > 0


def align(item: Sequences, left: bool) -> tuple[Ints, str]:
    """Move left-padded frames to the front, in place, and find the true lengths.

    In a file padded on the right, stated lengths that cover every non-zero frame
    are believed: zero frames at the start are then a gap (a missed face).

    Args:
        item: the sequences.
        left: what `padded_left` says of the file.

    Returns:
        (N,) lengths of at least 1, and what was mended ("" if nothing).
    """
    total, size, _ = item.frames.shape
    first, extent = item.first, item.extent
    stated = np.maximum(extent, 1) if item.stated is None else item.stated
    short = extent > stated
    # A length too short for its frames, which reach the end, was counted from there.
    moved = (first > 0) & (left | (short & (extent == size)))
    # Without any frame, only a length of all T tells that padding was counted.
    moved &= (extent > 0) | (stated == size)
    # A length counted from the end may include a gap at the start.
    start = np.where(short, np.minimum(first, size - stated), first)
    lengths = np.maximum(np.where(moved, size - start, np.maximum(stated, extent)), 1)
    for i in np.flatnonzero(moved):
        # Only zeros stand before `start`, so what goes round is padding.
        item.frames[i] = np.roll(item.frames[i], -start[i], axis=0)
    mended = []
    shifted = int((moved & (extent > 0)).sum())
    if shifted:
        mended.append(
            f"{shifted} of {total} samples were padded on the left and have been moved"
            " to the front"
        )
    wrong = lengths != stated
    if item.stated is not None and wrong.any():
        mended.append(
            f"{int(wrong.sum())} of {total} stated lengths"
            f" ({int((wrong & (stated == 1)).sum())} of them 1) did not fit the"
            " non-zero frames and have been counted from the frames"
        )
    return lengths, "; ".join(mended)
