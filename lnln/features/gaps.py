"""What is really missing in a clip, and the form it gets: the form of erased rows.

Sound that is not there, frames without a face: both become rows of zeros, as erasing
makes them, so that a model needs no change to read them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Bools = NDArray[np.bool_]

#: A block of sound whose peak is below this, in dBFS, holds no microphone's noise.
MUTED_BELOW = -70.0
#: How long it must stay below, and how long a block is, in seconds.
MUTED_FOR, BLOCK = 0.2, 0.02
#: Share of a frame's samples at full scale from which sound is called clipped.
_CLIPPED_SHARE, _FULL_SCALE = 0.1, 0.999
#: Seconds of equal values after which a picture is called frozen.
_FROZEN_FOR = 0.5
#: Of a time in seconds; more than rounding, less than any frame.
_ROUNDING = 1e-6


def muted(
    samples: Floats,
    rate: int,
    below: float = MUTED_BELOW,
    shortest: float = MUTED_FOR,
) -> Bools:
    """Where a microphone was dead or muted.

    A pause in a room is never that quiet; a gate that mutes pauses is, and looks like
    a dead microphone.

    Args:
        samples: (n,) sound in [-1, 1].
        rate: samples a second.
        below: peak of a muted block of 20 ms, in dBFS.
        shortest: of a muted stretch, in seconds.

    Returns:
        (n,) True in muted stretches.
    """
    size = max(1, round(BLOCK * rate))
    blocks = -(-len(samples) // size)
    padded = np.zeros(blocks * size, dtype=np.float32)
    padded[: len(samples)] = np.abs(samples)
    quiet = padded.reshape(blocks, size).max(axis=1) < 10 ** (below / 20)
    least = round(shortest / BLOCK)
    for start, end in runs(quiet):
        if end - start < least:
            quiet[start:end] = False
    return np.repeat(quiet, size)[: len(samples)]


def runs(mask: Bools) -> list[tuple[int, int]]:
    """The stretches of True: their first places, and one behind their last."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]])))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def touched(mask: Bools, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> Bools:
    """Which windows hold at least one marked sample.

    Args:
        mask: (n,) marked samples.
        starts, ends: (F,) first sample of each window, and one behind its last; what
            lies outside of the sound counts as unmarked.

    Returns:
        (F,) True where a window touches a mark.
    """
    total = np.concatenate([[0], np.cumsum(mask)])
    low, high = (np.clip(x, 0, len(mask)) for x in (starts, ends))
    result: Bools = total[high] > total[low]
    return result


def pool_frames(
    values: Floats, available: Bools, size: int, least: float = 0.5
) -> tuple[Floats, Bools]:
    """Rows as means over the available ones of each `size` frames.

    Frames behind the last full group make a row of their own.

    Args:
        values: (F, d); available: (F,).
        size: frames a row.
        least: a row is missing if a smaller share of its frames is left, or none.

    Returns:
        (T, d) rows, zero where missing, and (T,) which are there.
    """
    count = -(-len(values) // size)
    place = np.arange(len(values)) // size
    rows, left = _means(values, available, place, count)
    all_frames = np.bincount(place, minlength=count)
    there = (left > 0) & (left >= least * all_frames)
    return np.where(there[:, None], rows, 0).astype(np.float32), there


def pool_times(
    values: Floats, available: Bools, times: Doubles, rate: float, count: int
) -> tuple[Floats, Bools]:
    """Rows as means over the available frames that begin in a row's time.

    Row i covers [i / rate, (i + 1) / rate). Where no frame begins in a row's time, the
    one that is on display then counts, or the first one, if it is less than twice the
    usual step away: a slow or an uneven camera makes no gaps, one that stopped does.

    Args:
        values: (F, d); available: (F,); times: (F,) seconds, rising.
        rate: rows a second.
        count: T.

    Returns:
        (T, d) rows, zero where missing, and (T,) which are there.
    """
    place = np.floor(times * rate + _ROUNDING).astype(np.int64)
    inside = (place >= 0) & (place < count)
    rows, left = _means(values[inside], available[inside], place[inside], count)
    empty = np.flatnonzero(np.bincount(place[inside], minlength=count) == 0)
    if len(times) > 1 and len(empty):
        starts = empty / rate
        shown = np.searchsorted(times, starts + _ROUNDING, side="right") - 1
        shown = np.maximum(shown, 0)
        away = np.abs(starts - times[shown])
        usual = float(np.median(np.diff(times)))
        fresh = (away < 2 * usual) & available[shown]
        rows[empty[fresh]] = values[shown[fresh]]
        left[empty[fresh]] = 1
    return np.where(left[:, None] > 0, rows, 0).astype(np.float32), left > 0


def _means(
    values: Floats, available: Bools, place: NDArray[np.int64], count: int
) -> tuple[Doubles, NDArray[np.int64]]:
    """Means of the available frames by place, and how many there are."""
    total = np.zeros((count, values.shape[1]))
    np.add.at(total, place[available], values[available].astype(np.float64))
    left = np.bincount(place[available], minlength=count)
    return total / np.maximum(left, 1)[:, None], left


def is_clipped(samples: Floats, rate: int) -> bool:
    """Whether some 40 ms of sound have a tenth of their samples at full scale."""
    size = max(1, round(2 * BLOCK * rate))
    full = (np.abs(samples[: len(samples) // size * size]) >= _FULL_SCALE).reshape(
        -1, size
    )
    return bool((full.mean(axis=1) >= _CLIPPED_SHARE).any()) if len(full) else False


def is_frozen(values: Floats, available: Bools, times: Doubles) -> bool:
    """Whether the values of available frames stay equal for half a second."""
    same = (values[1:] == values[:-1]).all(axis=1) & available[1:] & available[:-1]
    longest = max((times[b] - times[a] for a, b in runs(same)), default=0.0)
    return bool(longest >= _FROZEN_FOR - _ROUNDING)


@dataclass
class Notes:
    """What was found odd: {what: ids}; and seconds of sound, all and those lost."""

    clips: dict[str, list[str]] = field(default_factory=dict)
    heard: float = 0.0
    lost: float = 0.0

    def add(self, clip_id: str, what: str) -> None:
        """Note something about a clip."""
        self.clips.setdefault(what, []).append(clip_id)

    def sentences(self, total: int) -> tuple[str, ...]:
        """What was found, of `total` clips."""
        found = [
            f"{len(ids)} of {total} clips {what} (such as {ids[0]!r})."
            for what, ids in self.clips.items()
        ]
        if self.lost:
            # A gate that mutes pauses looks like a dead microphone: people must see it.
            share = self.lost / self.heard
            found.append(f"{share:.1%} of all sound is muted or missing.")
        return tuple(found)
