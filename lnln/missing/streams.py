"""Chance, one stream per purpose: no two things that are drawn share their numbers."""

from __future__ import annotations

import numpy as np
import torch

#: What is drawn, in a fixed order: the places are part of every result.
PURPOSES = (
    "weights",
    "order",
    "rates",
    "masks",
    "words",
    "dropout",
    "which modality",
)


def stream_seed(seed: int, purpose: str, *place: int) -> int:
    """The seed of a purpose: that of a child of `numpy.random.SeedSequence(seed)`.

    Args:
        seed: of the run or of the masks, at least 0.
        purpose: one of `PURPOSES`.
        place: what tells its repetitions apart, such as the epoch.

    Returns:
        A number below 2**64.
    """
    key = (PURPOSES.index(purpose), *place)
    child = np.random.SeedSequence(seed, spawn_key=key)
    return int(child.generate_state(1, np.uint64)[0])


def stream(
    seed: int, purpose: str, *place: int, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A generator of its own for a purpose; arguments as in `stream_seed`."""
    return torch.Generator(device).manual_seed(stream_seed(seed, purpose, *place))
